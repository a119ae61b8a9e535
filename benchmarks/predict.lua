-- Every request is the next, unnumbered observation of some client. wrk does not say which connection it asks for, so
-- the clients take turns, sixteen to a connection: none of them ever has two requests under way.
dofile((os.getenv("BENCH_LUA") or "benchmarks") .. "/report.lua")

local path = os.getenv("BENCH_PATH")
local clients = 16 * tonumber(os.getenv("BENCH_CONNECTIONS"))
local sent = 0

function request()
  local client = sent % clients
  local hour = math.floor(sent / clients) + client
  sent = sent + 1
  local body = string.format('{"observation": [%.2f, %.2f, %.1f]}',
    12 + 9 * math.sin(hour / 24 * 2 * math.pi) + math.random(), 3 + 4 * math.sin(hour / 100), 1013 + 8 * math.cos(hour / 70))
  return wrk.format("POST", string.format(path, client), nil, body)
end
