-- Writes that only the present holder of an agenda member may do. All or nothing.
--
-- KEYS[1]   agenda:leases  hash  member -> "fence until wake call" (schedule.lua)
-- KEYS[2..] what is written to
-- ARGV[1]   member
-- ARGV[2]   the writer's fence
-- ARGV[3..] commands, each as: number of words, verb, index of its key in KEYS, the other words
--           the verb NEEDS begins a part: without this key, the part is left out
--           the verb STILL: unless this field of this hash has this value, the rest of the part is left out
--           the verb OTHER: if this field of this hash has this value, the rest of the part is left out
--           the verb SAME: unless this key has this value, the rest of the part is left out
-- answer    1, or 0: somebody else holds the member now, nothing was written

local lease = redis.call("HGET", KEYS[1], ARGV[1])
if not lease or lease:match("^%d+") ~= ARGV[2] then return 0 end

local at, wanted = 3, true
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  local words = { ARGV[at + 1], KEYS[tonumber(ARGV[at + 2])] }
  for index = at + 3, at + count do words[#words + 1] = ARGV[index] end
  if words[1] == "NEEDS" then
    wanted = redis.call("EXISTS", words[2]) == 1
  elseif words[1] == "SAME" then
    wanted = wanted and redis.call("GET", words[2]) == words[3]
  elseif words[1] == "STILL" then
    wanted = wanted and redis.call("HGET", words[2], words[3]) == words[4]
  elseif words[1] == "OTHER" then
    wanted = wanted and redis.call("HGET", words[2], words[3]) ~= words[4]
  elseif wanted then
    redis.call(unpack(words))
  end
  at = at + count + 1
end
return 1
