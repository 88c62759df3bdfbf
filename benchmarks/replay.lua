-- Sends the requests of a file in turn: bytes as they are, each ended by a NUL.
-- wrk ... -s replay.lua URL -- FILE
-- At the end, one line of JSON: times in microseconds, and the responses of each thread.

local requests = {}
local threads = {}
at = 0
sent = 0

function setup(thread)
  thread:set("at", 7 * #threads) -- so that threads don't send the same requests at once
  threads[#threads + 1] = thread
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for request in file:read("*a"):gmatch("%Z+") do
    requests[#requests + 1] = request
  end
  file:close()
end

function request()
  sent = sent + 1
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  local clients = {}
  for number, thread in ipairs(threads) do
    -- The last request has no response, and wrk calls request() of the first thread once to try it.
    clients[number] = math.max(0, thread:get("sent") - (number == 1 and 2 or 1))
  end
  io.write(string.format(
    '\n{"seconds": %f, "requests": %d, "refused": %d, "broken": %d, "p50": %f, "p99": %f, "worst": %f, "clients": [%s]}\n',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max, table.concat(clients, ", ")
  ))
end
