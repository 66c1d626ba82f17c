-- The agenda: everything that has to happen later, and who holds what now; behind clock.lua and schedule.lua.
--
-- KEYS[3]  agenda:fence    counter     the last fencing number given out
-- ARGV[2]  the verb; what follows belongs to it:
--   schedule member at      no later than `at`: puts it in, or brings it forward; a held member is woken when it ends
--   due      limit lease    claims what is due               -> {member, fence, member, fence, ...}
--   claim    member lease   claims one member, due or not    -> fence, or 0: not in the agenda, or held
--   begin    member fence lease  the worker takes over the tick's claim -> its own fence, or 0: the message is stale
--   extend   member fence lease                              -> 1, or 0: lost
--   finish   member fence at     at "-": nothing more to do  -> 1, or 0: lost
--   drop     member         takes it out, whoever holds it   -> 1, or 0: it was not there

local fences, verb, member = KEYS[3], ARGV[2], ARGV[3]

local function hold(name, duration, wake)
  local fence = redis.call("INCR", fences)
  local till = now + duration
  redis.call("ZADD", agenda, whole(till), name)
  redis.call("HSET", leases, name, whole(fence) .. " " .. whole(till) .. " " .. whole(wake))
  return fence
end

if verb == "schedule" then
  schedule(member, tonumber(ARGV[4]))
  return 1
elseif verb == "due" then
  local answer = {}
  for _, name in ipairs(redis.call("ZRANGEBYSCORE", agenda, "-inf", whole(now), "LIMIT", 0, tonumber(ARGV[3]))) do
    answer[#answer + 1] = name
    answer[#answer + 1] = hold(name, tonumber(ARGV[4]), 0)
  end
  return answer
elseif verb == "claim" then
  if not redis.call("ZSCORE", agenda, member) or held(lease_of(member)) then return 0 end
  return hold(member, tonumber(ARGV[4]), 0)
elseif verb == "begin" then
  local lease = lease_of(member)
  if not held(lease) or lease.fence ~= tonumber(ARGV[4]) then return 0 end
  return hold(member, tonumber(ARGV[5]), lease.wake)
elseif verb == "extend" then
  local lease = lease_of(member)
  if not held(lease) or lease.fence ~= tonumber(ARGV[4]) then return 0 end
  local till = now + tonumber(ARGV[5])
  redis.call("ZADD", agenda, whole(till), member)
  redis.call("HSET", leases, member, whole(lease.fence) .. " " .. whole(till) .. " " .. whole(lease.wake))
  return 1
elseif verb == "finish" then
  local lease = lease_of(member)
  -- Too late is lost, even when nobody has taken it yet: what was asked for since then must not be overwritten.
  if not held(lease) or lease.fence ~= tonumber(ARGV[4]) then return 0 end
  redis.call("HDEL", leases, member)
  local at = tonumber(ARGV[5])
  if lease.wake > 0 and (at == nil or lease.wake < at) then at = lease.wake end
  if at == nil then redis.call("ZREM", agenda, member) else redis.call("ZADD", agenda, whole(at), member) end
  return 1
elseif verb == "drop" then
  redis.call("HDEL", leases, member)
  return redis.call("ZREM", agenda, member)
end
return redis.error_reply("agenda.lua: unknown verb " .. tostring(verb))
