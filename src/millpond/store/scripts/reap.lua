#!lua flags=allow-oom
-- reap: running -> queued | failed
--
-- Takes back what workers held whose lease has ended. Each call may have been sent: it counts as
-- if the provider had it just now, its reservation stays charged until its outcome is told, and
-- its job is first in line again, unless it has seen too many workers die.
--
-- uses base turn flow window hold
-- ARGV  4 most        calls, at most 20
--       5 grace_ms    how long after now the provider may still count a lost call
--       6 died_body   what the row of a job says that saw too many workers die
--
-- Replies  {'reaped', calls, wait_ms}   wait_ms: until the next lease ends, -1 if there is no worker

local most, grace_ms, died_body = tonumber(arg[1]), tonumber(arg[2]), arg[3]
local n = 0

local function lose(call)
  stamp(call, now + grace_ms, call.units)
  count(call, 'reserved', -1)
  count(call, 'estimated', 1)
  tally(call.flow, 'calls', 1)
  book(call, 'unknown', need_of, call.need)
  for i = #call.jobs, 1, -1 do
    local job = call.jobs[i]
    local j = P .. 'j:' .. job.id
    if redis.call('HGET', j, 'call') == call.id then
      local crashes_most = tonumber(redis.call('HGET', P .. 'f:' .. job.flow, 'crashes'))
      redis.call('HINCRBY', j, 'attempts', 1)
      if redis.call('HINCRBY', j, 'crashed', 1) >= crashes_most then
        finish(job.flow, job.id, 'failed', died_body)
      else
        redis.call('HSET', j, 'state', 'queued')   -- it keeps its call: a late answer is taken
        to_head(job.flow, job.id)
      end
    end
  end
  redis.call('HSET', P .. 'c:' .. call.id, 'state', 'lost')
  redis.call('ZADD', P .. 'o:' .. call.org .. ':lost', now, call.id)
  wake(call.lane)
end

for _, worker in ipairs(redis.call('ZRANGE', P .. 'workers', '-inf', '(' .. string.format('%d', lease_now), 'BYSCORE', 'LIMIT', 0, 50)) do
  for _, id in ipairs(redis.call('SRANDMEMBER', P .. 'wc:' .. worker, most - n)) do
    local call = read_call(id)
    redis.call('SREM', P .. 'wc:' .. worker, id)
    if call and call.worker == worker and call.state == 'running' then lose(call) end
    n = n + 1
  end
  if redis.call('SCARD', P .. 'wc:' .. worker) > 0 then break end
  local pool, free = unpack(redis.call('HMGET', P .. 'w:' .. worker, 'pool', 'free'))
  if pool then redis.call('HINCRBY', M, 'free:' .. pool, -free) end
  redis.call('ZREM', P .. 'workers', worker)
  redis.call('DEL', P .. 'w:' .. worker)
end

local next_end = redis.call('ZRANGE', P .. 'workers', 0, 0, 'WITHSCORES')[2]
return reply('reaped', n, next_end and math.max(0, next_end - lease_now) or -1)
