#!lua flags=allow-oom
-- new_life: the server was started again
--
-- What the server knew may be a moment old, so lanes release nothing until every worker has told
-- what it holds (`heartbeat`). Ids of calls jump, so that none is given twice, not even by a
-- server that comes back with nothing: they begin at the time.
--
-- uses base
-- ARGV  4 run_id   of the server, from INFO
--
-- Replies  {'new'}    life has begun
--          {'same'}   it is the same server as before

if redis.call('HGET', M, 'run_id') == arg[1] then return reply('same') end
life = life + 1
local call = tonumber(redis.call('HGET', M, 'call')) or 0
local base = math.max(math.floor(call / 2^20) + 1, math.floor(time / 1000)) * 2^20
redis.call('HSET', M, 'run_id', arg[1], 'life', life,
  'known', string.format('%d', call), 'call', string.format('%d', base), 'base', string.format('%d', base))
return reply('new')
