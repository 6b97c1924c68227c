#!lua flags=allow-oom
-- claim: released -> running
--
-- A worker takes ready calls, at most its share of them, so that a burst leaves by all workers
-- at once. Asked again with the same number it gives the same calls.
--
-- uses base turn flow window hold
-- ARGV  4 worker
--       5 seq    number of this claim, counted by the worker
--       6 most   calls, at most 200: its free slots
--
-- Replies  {'claimed', call...}   each {id, lane, org, flow, need, tokens, inputs, bulk, attempts allowed, job...}
--                                 each job {id, failures, payload, need, attempts allowed}
--          {'unknown'}            the worker is not registered in this life of the server: heartbeat first

local worker, seq, most = arg[1], tonumber(arg[2]), tonumber(arg[3])
local w = P .. 'w:' .. worker
local pool, last_seq, last, told_life = unpack(redis.call('HMGET', w, 'pool', 'seq', 'last', 'life'))
if not pool or tonumber(told_life) ~= life then return reply('unknown') end

local JOBS_MOST = 400   -- who has so many is given no more calls

-- What the worker needs of a call; nil: one of its jobs is not to be asked any more. (`again`: it was told before.)
local function describe(call, again)
  local told = {call.id, call.lane, call.org, call.flow, call.need, call.units.tokens, call.units.inputs, call.units.bulk,
    tonumber(redis.call('HGET', P .. 'f:' .. call.flow, 'attempts')) or 1}
  for _, job in ipairs(call.jobs) do
    local failures, cancelled, deadline = unpack(redis.call('HMGET', P .. 'j:' .. job.id, 'failures', 'cancel', 'deadline'))
    if not again and (cancelled or (tonumber(deadline) or now + 1) <= now) then return nil end
    local attempts = job.flow ~= call.flow and redis.call('HGET', P .. 'f:' .. job.flow, 'attempts')
    told[#told + 1] = {job.id, tonumber(failures) or 0, redis.call('GET', P .. 'y:' .. job.id) or '', job.need, tonumber(attempts) or told[9]}
  end
  return told
end

-- Whether a released call may not be sent any more.
local function stopped(call)
  local shut_until, paused = unpack(redis.call('HMGET', P .. 'l:' .. call.lane, 'shut_until', 'paused'))
  if paused or (tonumber(shut_until) or 0) > now or redis.call('HGET', P .. 'o:' .. call.org, 'status') == 'suspended' then
    return true
  end
  for _, flow in ipairs(flows_of(call)) do
    if redis.call('HEXISTS', P .. 'f:' .. flow, 'paused') == 1 then return true end
  end
  return false
end

local claimed = {}
if tonumber(last_seq) == seq then
  for id in each(last) do
    local call = read_call(id)
    if call and call.worker == worker and call.state == 'running' then claimed[#claimed + 1] = describe(call, true) end
  end
  return reply('claimed', unpack(claimed))
end

-- After a restart a ready call may be one that a worker runs which has not been heard of yet.
if not all_reported() then return reply('claimed') end

local ready = P .. 'ready:' .. pool
local share = math.ceil(redis.call('LLEN', ready) / math.max(1, redis.call('ZCARD', P .. 'workers')))
local ids, jobs, back = {}, 0, {}
while #claimed < math.min(most, share) and jobs < JOBS_MOST do
  local id = redis.call('LPOP', ready)
  if not id then break end
  local call = read_call(id)
  local told = call and not stopped(call) and describe(call)
  if call and not told then
    back[#back + 1] = call
  elseif call then
    call.state, call.worker = 'running', worker
    redis.call('HSET', P .. 'c:' .. id, 'state', 'running', 'worker', worker, 'seq', seq)
    for _, job in ipairs(call.jobs) do redis.call('HSET', P .. 'j:' .. job.id, 'state', 'running') end
    redis.call('SADD', P .. 'wc:' .. worker, id)
    ids[#ids + 1] = id
    claimed[#claimed + 1] = told
    jobs = jobs + #call.jobs
  end
end
for i = #back, 1, -1 do unsend(back[i]) end   -- the first comes to the head of the line
redis.call('HSET', w, 'seq', seq, 'last', table.concat(ids, ','))
redis.call('HINCRBY', w, 'free', -#ids)
redis.call('HINCRBY', M, 'free:' .. pool, -#ids)
return reply('claimed', unpack(claimed))
