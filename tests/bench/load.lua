-- What wrk does in one slice of the benchmark.
--
--   wrk … -s load.lua <url>                              the same GET over and over
--   wrk … -s load.lua <url> -- <tenants> <seed>          a GET to a tenant drawn at random
--   wrk … -s load.lua <url> -- <tenants> <seed> <body>   the webhook: a POST to a tenant drawn at random
--
-- The draw is uniform and repeatable: each thread is seeded with the slice's number and its own. The requests
-- are written out once, so that the generator costs the server's machine as little as possible.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(args)
  local tenants = tonumber(args[1])
  if not tenants then return end
  math.randomseed(tonumber(args[2]) * 64 + number)
  if args[3] then
    wrk.method = "POST"
    wrk.body = args[3]
    wrk.headers["Content-Type"] = "application/json"
  end
  local written = {}
  for i = 1, tenants do
    written[i] = wrk.format(nil, string.format("/t/bench-%04d/fn", i - 1))
  end
  request = function() return written[math.random(tenants)] end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    "slice requests=%d duration_us=%d p50_us=%d p99_us=%d status=%d socket=%d timeout=%d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write, e.timeout))
end
