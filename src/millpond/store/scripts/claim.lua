#!lua
-- claim: released -> running
--
-- A worker takes ready calls, at most its share of them, so that a burst leaves by all workers
-- at once. Asked again with the same number it gives the same calls.
--
-- uses base flow window hold
-- ARGV  4 worker
--       5 seq    number of this claim, counted by the worker
--       6 most   calls, at most 200: its free slots
--
-- Replies  {'claimed', call...}   each {id, lane, org, flow, need, tokens, attempts allowed, job...}
--                                 each job {id, failures, payload}
--          {'unknown'}            the worker is not registered in this life of the server: heartbeat first

local worker, seq, most = arg[1], tonumber(arg[2]), tonumber(arg[3])
local w = P .. 'w:' .. worker
local pool, last_seq, last, told_life = unpack(redis.call('HMGET', w, 'pool', 'seq', 'last', 'life'))
if not pool or tonumber(told_life) ~= life then return reply('unknown') end

local function describe(call)
  local told = {call.id, call.lane, call.org, call.flow, call.need, call.units.tokens,
    tonumber(redis.call('HGET', P .. 'f:' .. call.flow, 'attempts'))}
  for job in each(call.jobs) do
    local failures = tonumber(redis.call('HGET', P .. 'j:' .. job, 'failures')) or 0
    told[#told + 1] = {job, failures, redis.call('GET', P .. 'y:' .. job)}
  end
  return told
end

local claimed = {}
if tonumber(last_seq) == seq then
  for id in each(last) do
    local call = read_call(id)
    if call and call.worker == worker and call.state == 'running' then claimed[#claimed + 1] = describe(call) end
  end
  return reply('claimed', unpack(claimed))
end

local ready = P .. 'ready:' .. pool
local share = math.ceil(redis.call('LLEN', ready) / math.max(1, redis.call('ZCARD', P .. 'workers')))
local ids = {}
while #claimed < math.min(most, share) do
  local id = redis.call('LPOP', ready)
  if not id then break end
  local call = read_call(id)
  if call then
    local shut_until = tonumber(redis.call('HGET', P .. 'l:' .. call.lane, 'shut_until')) or 0
    if shut_until > now or redis.call('HEXISTS', P .. 'l:' .. call.lane, 'paused') == 1
      or redis.call('HEXISTS', P .. 'f:' .. call.flow, 'paused') == 1 then
      unsend(call)
    else
      call.state, call.worker = 'running', worker
      redis.call('HSET', P .. 'c:' .. id, 'state', 'running', 'worker', worker, 'seq', seq)
      for job in each(call.jobs) do redis.call('HSET', P .. 'j:' .. job, 'state', 'running') end
      redis.call('SADD', P .. 'wc:' .. worker, id)
      ids[#ids + 1] = id
      claimed[#claimed + 1] = describe(call)
    end
  end
end
redis.call('HSET', w, 'seq', seq, 'last', table.concat(ids, ','))
redis.call('HINCRBY', w, 'free', -#ids)
redis.call('HINCRBY', M, 'free:' .. pool, -#ids)
return reply('claimed', unpack(claimed))
