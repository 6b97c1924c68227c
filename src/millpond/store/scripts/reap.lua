#!lua flags=allow-oom
-- reap: running -> queued | failed | cancelled | expired
--
-- Takes back what workers held whose lease has ended. Each call may have been sent: it counts as
-- if the provider had it just now, its reservation stays charged until its outcome is told, and
-- its jobs are first in line again, unless they are not to be asked twice or have seen too many
-- workers die: those go to the dead letters. If it is known which call a worker died of, only that one's
-- jobs are held responsible, and each death counts for a third of what a job may see.
--
-- uses base turn flow window hold
-- ARGV  4 most        calls, at most 20
--       5 grace_ms    how long after now the provider may still count a lost call
--       6 died_body   what the row of a job says that saw too many workers die
--       7 blamed_body what is remembered of a job whose worker died
--
-- Replies  {'reaped', calls, wait_ms}   wait_ms: until the next lease ends, -1 if there is no worker

local DEAD_MOST = 1000   -- letters of an org; the oldest leave

local most, grace_ms, died_body, error_of_death = tonumber(arg[1]), tonumber(arg[2]), arg[3], arg[4]
local n = 0

-- What is needed to ask a dead job again, or to see what it died of.
local function bury(org, flow, job)
  local j, x, dead = P .. 'j:' .. job, P .. 'x:' .. job, P .. 'o:' .. org .. ':dead'
  local entry, note, errors, attempts, failures, crashed, call =
    unpack(redis.call('HMGET', j, 'entry', 'note', 'errors', 'attempts', 'failures', 'crashed', 'call'))
  redis.call('HSET', x, 'flow', flow, 'entry', entry, 'note', note, 'payload', redis.call('GET', P .. 'y:' .. job) or '',
    'errors', errors or '', 'attempts', attempts, 'failures', failures or 0, 'crashed', crashed, 'call', call, 'at', now)
  local tag = redis.call('HGET', j, 'tag')
  if tag then redis.call('HSET', x, 'tag', tag) end
  redis.call('ZADD', dead, now, job)
  for _, old in ipairs(redis.call('ZRANGE', dead, 0, -DEAD_MOST - 1)) do
    redis.call('ZREM', dead, old)
    redis.call('DEL', P .. 'x:' .. old)
  end
end

-- A job that a worker may have died of shares no call any more: it would take others along.
local function set_apart(j)
  local entry = redis.call('HGET', j, 'entry')
  redis.call('HSET', j, 'entry', (string.gsub(entry, '[^|]*$', '')))
end

-- Its worker died: the job goes on, or ends. `guilt`: how much of that is held against it.
local function survive(org, flow, job, guilt)
  local j = P .. 'j:' .. job
  local crashed = redis.call('HINCRBY', j, 'crashed', guilt)
  redis.call('HINCRBY', j, 'attempts', 1)
  remember_error(job, error_of_death)
  local why = overtaken(job)
  if why then return end_overtaken(flow, job, why) end
  if redis.call('HGET', j, 'on_unknown') == 'end' then return end_unknown(flow, job) end
  if guilt > 0 and crashed >= tonumber(redis.call('HGET', P .. 'f:' .. flow, 'crashes')) then
    bury(org, flow, job)
    return finish(flow, job, 'failed', died_body)
  end
  redis.call('HSET', j, 'state', 'queued')   -- it keeps its call: a late answer is taken
  to_head(flow, job)
end

-- What a death counts: one, where nobody knows which call it was; else a third of what the job may see, and
-- nothing for the others.
local function guilt_of(call, job, blamed)
  if not blamed then return 1 end
  if blamed ~= call.id then return 0 end
  set_apart(P .. 'j:' .. job.id)
  return math.ceil(tonumber(redis.call('HGET', P .. 'f:' .. job.flow, 'crashes')) / 3)
end

local function lose(call, blamed)
  stamp(call, now + grace_ms, call.units)
  count(call, 'reserved', -1)
  count(call, 'estimated', 1)
  tally(call.flow, 'calls', 1)
  book(call, 'unknown', need_of, call.need, now + grace_ms)
  for i = #call.jobs, 1, -1 do
    local job = call.jobs[i]
    if redis.call('HGET', P .. 'j:' .. job.id, 'call') == call.id then
      survive(call.org, job.flow, job.id, guilt_of(call, job, blamed))
    end
  end
  redis.call('HSET', P .. 'c:' .. call.id, 'state', 'lost')
  redis.call('ZADD', P .. 'o:' .. call.org .. ':lost', now, call.id)
  wake(call.lane)
end

for _, worker in ipairs(redis.call('ZRANGE', P .. 'workers', '-inf', '(' .. string.format('%d', lease_now), 'BYSCORE', 'LIMIT', 0, 50)) do
  local blamed = redis.call('HGET', P .. 'w:' .. worker, 'blamed')
  for _, id in ipairs(calls_of(worker)) do
    if n >= most then break end
    local call = read_call(id)
    redis.call('SREM', P .. 'wc:' .. worker, id)
    if call and call.worker == worker and call.state == 'running' then lose(call, blamed) end
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
