#!lua flags=allow-oom
-- new_life: the server was started again
--
-- What the server knew may be a moment old, so lanes release nothing until every worker has told
-- what it holds (`heartbeat`). Ids of calls jump, so that none is given twice.
--
-- uses base
-- ARGV  4 run_id   of the server, from INFO
--
-- Replies  {'new'}    life has begun
--          {'same'}   it is the same server as before

if redis.call('HGET', M, 'run_id') == arg[1] then return reply('same') end
life = life + 1
local call = tonumber(redis.call('HGET', M, 'call')) or 0
redis.call('HSET', M, 'run_id', arg[1], 'life', life, 'call', string.format('%d', (math.floor(call / 2^24) + 1) * 2^24))
return reply('new')
