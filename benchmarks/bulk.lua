-- Every request is the next observation of many clients. wrk does not say which connection it asks for, so sets of
-- clients take turns, two to a connection: none of them ever has two requests under way. Bodies are made beforehand.
dofile((os.getenv("BENCH_LUA") or "benchmarks") .. "/beforehand.lua")

local path = os.getenv("BENCH_PATH")
local clients = tonumber(os.getenv("BENCH_CLIENTS"))
local sets = 2 * tonumber(os.getenv("BENCH_CONNECTIONS"))
local hours = 4

function init()
  for hour = 1, hours do
    for set = 0, sets - 1 do
      local items = {}
      for n = 0, clients - 1 do
        items[n + 1] = string.format('{"client":"bulk-%d","observation":[%.2f,%.2f,%.1f]}', set * clients + n,
          12 + 9 * math.sin(hour / 24 * 2 * math.pi) + math.random(), 3 + math.random(), 1013 + 2 * math.random())
      end
      requests[#requests + 1] = wrk.format("POST", path, nil, '{"items":[' .. table.concat(items, ",") .. ']}')
    end
  end
end
