-- Every request is an unnumbered observation of a client drawn at random from many.
dofile((os.getenv("BENCH_LUA") or "benchmarks") .. "/report.lua")

local clients = tonumber(os.getenv("BENCH_CLIENTS"))
math.randomseed(tonumber(os.getenv("BENCH_SEED")))

function request()
  local path = string.format("/v1/models/sensor/clients/crowd-%d/predict", math.random(0, clients - 1))
  local body = string.format('{"observation": [%.2f, %.2f, %.1f]}',
    12 + 9 * math.random(), 3 + 4 * math.random(), 1013 + 8 * math.random())
  return wrk.format("POST", path, nil, body)
end
