-- Every request is the next, unnumbered observation of some client. wrk does not say which connection it asks for, so
-- the clients take turns, sixteen to a connection: none of them ever has two requests under way. Requests are made
-- beforehand, a day's: the load generator shares the processors with what it measures.
dofile((os.getenv("BENCH_LUA") or "benchmarks") .. "/beforehand.lua")

local path = os.getenv("BENCH_PATH")
local clients = 16 * tonumber(os.getenv("BENCH_CONNECTIONS"))
local hours = 24

function init()
  for hour = 1, hours do
    for client = 0, clients - 1 do
      local body = string.format('{"observation": [%.2f, %.2f, %.1f]}',
        12 + 9 * math.sin((hour + client) / hours * 2 * math.pi) + math.random(), 3 + 4 * math.sin((hour + client) / 100),
        1013 + 8 * math.cos((hour + client) / 70))
      requests[#requests + 1] = wrk.format("POST", string.format(path, client), nil, body)
    end
  end
end
