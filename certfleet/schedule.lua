-- The agenda as every script sees it that puts something there; behind clock.lua.
--
-- KEYS[1]  agenda          sorted set  member -> time it is due (Unix microseconds); while held: the lease's end
-- KEYS[2]  agenda:leases   hash        member -> "fence until wake call"; wake is 0, or the time it was asked for meanwhile;
--                                                  call is the word that the holder's call came with

local agenda, leases = KEYS[1], KEYS[2]

local function lease_of(name)
  local text = redis.call("HGET", leases, name)
  if not text then return nil end
  local fence, till, wake, call = text:match("^(%d+) (%d+) (%d+) (%w+)$")
  return { fence = tonumber(fence), till = tonumber(till), wake = tonumber(wake), call = call }
end

local function write_lease(name, lease)
  redis.call("HSET", leases, name, whole(lease.fence) .. " " .. whole(lease.till) .. " " .. whole(lease.wake) .. " " .. lease.call)
end

local function held(lease)
  return lease ~= nil and lease.till > now
end

-- No later than `at`: puts the member in, or brings it forward; a held member is woken when it ends.
local function schedule(name, at)
  local lease = lease_of(name)
  if not held(lease) then
    redis.call("ZADD", agenda, "LT", whole(at), name)
  elseif lease.wake == 0 or at < lease.wake then
    lease.wake = math.max(at, 1)
    write_lease(name, lease)
  end
end
