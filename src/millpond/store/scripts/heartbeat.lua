#!lua flags=allow-oom
-- heartbeat: a worker lives
--
-- Registers it, renews its lease and puts the count of free slots right. Calls of its claims
-- that it does not name never reached it (a lost reply) and are given back. After a restart of
-- the server it names every call that it holds, and what the server has forgotten is held again.
--
-- uses base turn flow window hold
-- ARGV  4 worker
--       5 pool
--       6 free       slots
--       7 seq        the last claim whose answer the worker has seen
--       8 lease_ms
--       9 life       for which it has told everything; it first repeats its late settles
--      10 ...        per call held: id, lane, flow, need, tokens, inputs, bulk
--
-- Replies  {'beating', call...}   calls that it holds and that nobody wants answered any more

local worker, pool, free, seq, lease_ms, told_life = unpack(arg, 1, 6)
local w = P .. 'w:' .. worker
local old_free, old_life = unpack(redis.call('HMGET', w, 'free', 'life'))
redis.call('HINCRBY', M, 'free:' .. pool, free - (tonumber(old_free) or 0))
redis.call('HSET', w, 'pool', pool, 'free', free, 'life', told_life)
redis.call('ZADD', P .. 'workers', lease_now + lease_ms, worker)
if free - (tonumber(old_free) or 0) > 0 then slot_frees(pool) end

-- A call that a server forgot which lost its last moments is on its way all the same: held again. If
-- even its lane is gone it is kept without an org until somebody sets the lane (see limit.lua).
local function hold_again(id, lane, flow, need, tokens, inputs, bulk)
  local org, counted = unpack(redis.call('HMGET', P .. 'l:' .. lane, 'org', 'counted'))
  if redis.call('ZSCORE', P .. 'l:' .. lane .. ':s', id) then return end   -- stamped: it has ended
  redis.call('HSET', P .. 'c:' .. id, 'lane', lane, 'org', org or '', 'flow', flow, 'jobs', '', 'need', need, 'tokens', tokens,
    'inputs', inputs, 'bulk', bulk, 'state', 'running', 'pool', pool, 'counted', counted or '0', 'worker', worker, 'seq', seq)
  redis.call('SADD', P .. 'wc:' .. worker, id)
  if not org then return end
  redis.call('ZADD', P .. 'l:' .. lane .. ':flight', now, id)
  local call = read_call(id)
  in_flight(lane, call.units, 1)
  count(call, 'reserved', 1)
end

-- The same where only its claim was forgotten.
local function run_again(call)
  redis.call('LREM', P .. 'ready:' .. call.pool, 0, call.id)
  redis.call('HSET', P .. 'c:' .. call.id, 'state', 'running', 'worker', worker, 'seq', seq)
  redis.call('SADD', P .. 'wc:' .. worker, call.id)
  for _, job in ipairs(call.jobs) do redis.call('HSET', P .. 'j:' .. job.id, 'state', 'running') end
end

local held = {}
for i = 7, #arg, 7 do
  local id = arg[i]
  held[id] = true
  if old_life ~= told_life then
    local call = read_call(id)
    if not call then hold_again(unpack(arg, i, i + 6)) elseif call.state == 'ready' then run_again(call) end
  end
end

-- Who does not know of the server's new life yet may have settled what it does not name.
if tonumber(told_life) ~= life then return reply('beating') end
local unwanted = {}
for _, id in ipairs(calls_of(worker)) do
  local call = read_call(id)
  if not call or call.worker ~= worker then
    if not held[id] then
      redis.call('SREM', P .. 'wc:' .. worker, id)
      if not call then redis.call('DEL', P .. 'c:' .. id) end
    end
  elseif not held[id] and tonumber(redis.call('HGET', P .. 'c:' .. id, 'seq')) <= tonumber(seq) then
    redis.call('SREM', P .. 'wc:' .. worker, id)   -- its slot is in the count that came
    unsend(call)
  elseif held[id] and call.cancelled then
    unwanted[#unwanted + 1] = id
  end
end
return reply('beating', unpack(unwanted))
