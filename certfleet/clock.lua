-- Begins every script of ours: what time it is, and how a number is written.
--
-- ARGV[1]  now in microseconds, "0" for this server's own clock (keys written by any other clock do not expire)
--
-- Numbers are doubles: microseconds fit exactly, nanoseconds would not; "%.0f" because tostring() prints exponents.

local now = tonumber(ARGV[1])
local server_clock = now == 0

if server_clock then
  local clock = redis.call("TIME")
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
end

local function whole(number)
  return string.format("%.0f", number)
end
