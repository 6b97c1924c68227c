#!lua flags=allow-oom
-- purge: succeeded | failed | cancelled | expired -> gone
--
-- Single jobs that ended long ago leave, with their answers. A flow that holds no job any more leaves too: the next
-- job opens it again.
--
-- uses base turn flow single
-- ARGV  4 kept_ms   how long they are kept
--       5 most      jobs, at most 200
--
-- Replies  {'purged', n}   if it is `most`, there may be more

local kept_ms, most = tonumber(arg[1]), tonumber(arg[2])

local n = 0
for _, job in ipairs(redis.call('ZRANGE', P .. 'ended', '-inf', now - kept_ms, 'BYSCORE', 'LIMIT', 0, most)) do
  local org, flow = unpack(redis.call('HMGET', P .. 'j:' .. job, 'org', 'flow'))
  if org then
    erase(job, org, flow)
    close(flow)
  else
    redis.call('ZREM', P .. 'ended', job)
  end
  n = n + 1
end
return reply('purged', n)
