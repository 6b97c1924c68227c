#!lua flags=allow-oom
-- erase: what a single job asked and was answered is kept no more
--
-- One that has ended is gone at once; one that has not is once it ends: say `cancel` after this.
--
-- uses base turn flow single
-- ARGV  4 org
--       5 job
--
-- Replies  {'erased'}
--          {'ending'}    it has not ended yet
--          {'unknown'}   no such job of the org

local org, job = arg[1], arg[2]
local of, flow, ended = unpack(redis.call('HMGET', P .. 'j:' .. job, 'org', 'flow', 'ended'))
if of ~= org then return reply('unknown') end
if ended then
  erase(job, org, flow)
  close(flow)
  return reply('erased')
end
redis.call('HSET', P .. 'j:' .. job, 'erase', 1)
return reply('ending')
