"""The library that tests, benchmarks and scripts share: renders, servers, clients and faults."""
