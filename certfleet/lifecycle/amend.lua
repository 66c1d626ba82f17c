-- Changes what is kept of an app on a host, unless somebody else wrote since it was read.
--
-- KEYS[1]  app:<app>            string
-- KEYS[2]  installations:<app>  hash  host -> Installation
-- KEYS[3]  pending:<host>       set   apps with something to install there
-- ARGV[1]  host
-- ARGV[2]  app
-- ARGV[3]  what was read; empty: nothing
-- ARGV[4]  what it becomes
-- ARGV[5]  1: the host has work with it
-- answer   1, or 0: nothing was written. An app that was removed meanwhile leaves nothing behind: 1.

if redis.call("EXISTS", KEYS[1]) == 0 then return 1 end
if (redis.call("HGET", KEYS[2], ARGV[1]) or "") ~= ARGV[3] then return 0 end
redis.call("HSET", KEYS[2], ARGV[1], ARGV[4])
if ARGV[5] == "1" then redis.call("SADD", KEYS[3], ARGV[2]) end
return 1
