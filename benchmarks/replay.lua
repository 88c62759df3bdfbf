-- Sends the requests of a file in turn: bytes as they are, each ended by a NUL.
-- wrk ... -s replay.lua URL -- FILE
-- At the end, one line of JSON: times in microseconds.

local requests = {}
local at = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for request in file:read("*a"):gmatch("%Z+") do
    requests[#requests + 1] = request
  end
  file:close()
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"seconds": %f, "requests": %d, "refused": %d, "broken": %d, "p50": %f, "p99": %f, "worst": %f}\n',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max
  ))
end
