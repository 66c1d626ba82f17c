-- The agenda: everything that has to happen later, and who holds what now; behind clock.lua and schedule.lua.
--
-- KEYS[3]  agenda:fence    counter     the last fencing number given out
-- KEYS[4]  agenda:due      string      what the last `due` that found something was answered: "call member fence ..."
-- ARGV[2]  the verb; what follows belongs to it:
--   schedule member at      no later than `at`: puts it in, or brings it forward; a held member is woken when it ends
--   due      limit lease call    claims what is due               -> {member, fence, member, fence, ...}
--   claim    member lease call ahead  claims one member, if it is due within so many microseconds; "-": due or not
--                                                            -> fence, or 0: not in the agenda, not due, or held
--   begin    member fence lease call  the worker takes over the tick's claim -> its own fence, or 0: the message is stale
--   extend   member fence lease                              -> 1, or 0: lost
--   finish   member fence at     at "-": nothing more to do  -> 1, or 0: lost
--   drop     member         takes it out, whoever holds it   -> 1, or 0: it was not there
--
-- `call` is a new word for each call. A client that lost the connection before it had the answer repeats the call
-- with the same word, and is given the same claim: it would otherwise wait for its own lease to run out.

local fences, verb, member = KEYS[3], ARGV[2], ARGV[3]

local function hold(name, duration, wake, call)
  local lease = { fence = redis.call("INCR", fences), till = now + duration, wake = wake, call = call }
  redis.call("ZADD", agenda, whole(lease.till), name)
  write_lease(name, lease)
  return lease.fence
end

local function answered_before(call)
  local words = {}
  for word in string.gmatch(redis.call("GET", KEYS[4]) or "", "%S+") do words[#words + 1] = word end
  return table.remove(words, 1) == call and words or nil
end

if verb == "schedule" then
  schedule(member, tonumber(ARGV[4]))
  return 1
elseif verb == "due" then
  local call = ARGV[5]
  local answer = answered_before(call)
  if answer then return answer end
  answer = {}
  for _, name in ipairs(redis.call("ZRANGEBYSCORE", agenda, "-inf", whole(now), "LIMIT", 0, tonumber(ARGV[3]))) do
    answer[#answer + 1] = name
    answer[#answer + 1] = whole(hold(name, tonumber(ARGV[4]), 0, call))
  end
  if #answer > 0 then redis.call("SET", KEYS[4], call .. " " .. table.concat(answer, " ")) end
  return answer
elseif verb == "claim" then
  local lease, call = lease_of(member), ARGV[5]
  if held(lease) then return lease.call == call and lease.fence or 0 end
  local at, ahead = redis.call("ZSCORE", agenda, member), tonumber(ARGV[6])
  if not at or (ahead and tonumber(at) > now + ahead) then return 0 end
  return hold(member, tonumber(ARGV[4]), 0, call)
elseif verb == "begin" then
  local lease, call = lease_of(member), ARGV[6]
  if held(lease) and lease.call == call then return lease.fence end
  if not held(lease) or lease.fence ~= tonumber(ARGV[4]) then return 0 end
  return hold(member, tonumber(ARGV[5]), lease.wake, call)
elseif verb == "extend" then
  local lease = lease_of(member)
  if not held(lease) or lease.fence ~= tonumber(ARGV[4]) then return 0 end
  lease.till = now + tonumber(ARGV[5])
  redis.call("ZADD", agenda, whole(lease.till), member)
  write_lease(member, lease)
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
