-- For loads whose requests are made beforehand, in `init`: they are sent in turn, over and over.
dofile((os.getenv("BENCH_LUA") or "benchmarks") .. "/report.lua")

requests = {}
local sent = 0

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end
