#!lua
-- release: queued -> released
--
-- Lets calls go while every window of their lane has room, the quota has, and a worker has a
-- free slot: the lane with the lowest tag, in it the flow with the lowest tag. What cannot move
-- leaves the turn and costs nothing until it is due again.
--
-- A call in flight counts in every window; once it has ended its stamp does, until the window
-- has passed. That is the least a client must count to be sure (docs/decisions/0002).
--
-- uses base flow window
-- ARGV  4 most   calls, at most 200
--
-- Replies  {'released', n, wait_ms}   wait_ms: until the next look at a lane, -1 if none is set

local most = tonumber(arg[1])
local released, looked = 0, 0
local free = {}   -- pool -> free slots that no ready call will fill

local function slots(pool)
  if not free[pool] then
    free[pool] = (tonumber(redis.call('HGET', M, 'free:' .. pool)) or 0) - redis.call('LLEN', P .. 'ready:' .. pool)
  end
  return free[pool]
end

local function block(lane, at)
  redis.call('ZREM', P .. 'turn', lane)
  if at then redis.call('ZADD', P .. 'due', at, lane) end
end

-- After a restart of the server: has everyone who may hold a call told so?
local function all_reported()
  for _, w in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', lease_now, '+inf')) do
    if tonumber(redis.call('HGET', P .. 'w:' .. w, 'life')) ~= life then return false end
  end
  return true
end

-- What the limits leave: calls, and per other limit its unit and how much. If no call fits, when
-- one may (nil: when a call in flight ends).
local function room(lane, limits, window, share)
  local fits, at, event, others = most, 0, false, {}
  local known, longest = known_of(lane), 0
  for _, limit in ipairs(limits) do
    local amount, length, unit = unpack(limit)
    if unit == 'calls' and length == window and share < 1 then amount = math.max(1, math.floor(amount * share)) end
    local used, frees = taken(lane, limit, known)
    longest = math.max(longest, length)
    if unit ~= 'calls' then
      others[#others + 1] = {unit = unit, amount = amount, left = amount - used, frees = frees}
    elseif used >= amount then
      fits = 0
      local ends = frees(used - amount + 1)
      if ends then at = math.max(at, ends) else event = true end
    else
      fits = math.min(fits, amount - used)
    end
  end
  local l = P .. 'l:' .. lane
  for _, old in ipairs(redis.call('ZRANGE', l .. ':s', '-inf', now - longest, 'BYSCORE', 'LIMIT', 0, 128)) do
    redis.call('ZREM', l .. ':s', old)
  end
  return fits, not event and at or nil, others
end

-- Whether a job fits into the limits of other units, and if not, when it may. One that is larger
-- than a limit goes when all of the limit is free.
local function fits_others(others, units)
  local at, fits = 0, true
  for _, other in ipairs(others) do
    local lacking = math.min(units[other.unit], other.amount) - other.left
    if lacking > 0 then
      fits = false
      at = at and math.max(at, other.frees(lacking) or math.huge)
    end
  end
  return fits, at < math.huge and at or nil
end

-- The next queued job of the flow whose turn it is.
local function next_job(lane)
  local l = P .. 'l:' .. lane
  while looked < 200 do
    local flow = redis.call('ZRANGE', l .. ':f', 0, 0)[1]
    if not flow then return nil end
    local entry = redis.call('LPOP', P .. 'f:' .. flow .. ':q')
    if entry then
      looked = looked + 1
      local need, job, tokens = string.match(entry, '^(%d+)|(.+)|(%d+)$')
      if redis.call('HGET', P .. 'j:' .. job, 'state') == 'queued' then
        return flow, job, {inputs = 1, characters = tonumber(need), tokens = tonumber(tokens)}, entry
      end
    else
      redis.call('ZREM', l .. ':f', flow)
    end
  end
end

local function let_go(lane, org, pool, counted, flow, job, units)
  local need = units.characters
  local n = redis.call('HINCRBY', M, 'call', 1)
  local id = string.format('%x', n)
  redis.call('HSET', P .. 'c:' .. id, 'lane', lane, 'org', org, 'flow', flow, 'jobs', job, 'need', need, 'tokens', units.tokens,
    'state', 'ready', 'pool', pool, 'counted', counted)
  redis.call('HSET', P .. 'j:' .. job, 'state', 'released', 'call', id)
  redis.call('ZADD', P .. 'l:' .. lane .. ':flight', now, id)
  in_flight({lane = lane, units = units}, 1)
  if counted == '1' then redis.call('HINCRBY', P .. 'o:' .. org, 'reserved', need) end
  redis.call('HINCRBY', P .. 'f:' .. flow, 'reserved', need)
  redis.call('RPUSH', P .. 'ready:' .. pool, id)
  if redis.call('LLEN', P .. 'bell:w:' .. pool) < 8 then redis.call('LPUSH', P .. 'bell:w:' .. pool, 1) end
  local tag = tonumber(redis.call('ZSCORE', P .. 'l:' .. lane .. ':f', flow))
  redis.call('HSET', P .. 'l:' .. lane, 'v', tag)
  redis.call('ZADD', P .. 'l:' .. lane .. ':f', tag + 1, flow)
end

-- Lets up to `turn` calls of one lane go.
local function serve(lane, turn)
  local org, pool, counted, limits, paused, shut_until, lane_life, tag = unpack(redis.call('HMGET',
    P .. 'l:' .. lane, 'org', 'pool', 'counted', 'limits', 'paused', 'shut_until', 'life', 'tag'))
  if paused then return block(lane) end
  if tonumber(shut_until or 0) > now then return block(lane, tonumber(shut_until)) end
  if tonumber(lane_life) ~= life then
    if not all_reported() then return block(lane, now + 100) end
    redis.call('HSET', P .. 'l:' .. lane, 'life', life)
  end
  limits = cjson.decode(limits)
  local window, amount = shortest_of(limits)
  local share = share_of(lane, window)
  local fits, at, others = room(lane, limits, window, share)
  local careful = share < 1
  if fits <= 0 then
    -- The share climbs, so a careful lane is looked at again after a window at the latest.
    return block(lane, careful and math.min(at or math.huge, now + window) or at)
  end
  if careful then
    -- Evenly spaced: who counts in smaller pieces than we know of refuses bursts first.
    local paced_at = tonumber(redis.call('HGET', P .. 'l:' .. lane, 'paced_at')) or 0
    local next_ms = paced_at + math.min(window, math.ceil(window / (amount * share)))
    if next_ms > now then return block(lane, next_ms) end
    fits = 1
  end

  local left = counted == '1' and quota_left(org) or math.huge
  local gone, go = 0, math.min(turn, fits, slots(pool))
  while gone < go do
    local flow, job, units, entry = next_job(lane)
    if not flow then
      if looked < 200 then block(lane) end   -- nothing waits: a job or an event wakes it
      break
    end
    local suits, suits_at = fits_others(others, units)
    if units.characters > left then
      redis.call('ZADD', P .. 'f:' .. flow .. ':parked', units.characters, job)
      redis.call('SADD', P .. 'o:' .. org .. ':parked', flow)
    elseif not suits then
      redis.call('LPUSH', P .. 'f:' .. flow .. ':q', entry)
      block(lane, suits_at)
      break
    else
      left = left - units.characters
      for _, other in ipairs(others) do other.left = other.left - units[other.unit] end
      let_go(lane, org, pool, counted, flow, job, units)
      gone = gone + 1
      free[pool] = free[pool] - 1
    end
  end
  released = released + gone
  if careful and gone > 0 then redis.call('HSET', P .. 'l:' .. lane, 'paced_at', now) end
  redis.call('HSET', P .. 'l:' .. lane, 'tag', tag + gone)
  redis.call('ZADD', P .. 'turn', 'XX', tag + gone, lane)
  redis.call('HSET', M, 'v', tag)
end

-- What is due takes turns again, from where virtual time stands.
local v = tonumber(redis.call('HGET', M, 'v')) or 0
for _, lane in ipairs(redis.call('ZRANGE', P .. 'due', '-inf', now, 'BYSCORE', 'LIMIT', 0, 50)) do
  local tag = math.max(v, tonumber(redis.call('HGET', P .. 'l:' .. lane, 'tag')) or 0)
  redis.call('HSET', P .. 'l:' .. lane, 'tag', tag)
  redis.call('ZREM', P .. 'due', lane)
  redis.call('ZADD', P .. 'turn', tag, lane)
end

local full = 0   -- lanes at the head of the turn whose workers are all busy
while released < most and looked < 200 do
  local lane = redis.call('ZRANGE', P .. 'turn', full, full)[1]
  if not lane or full >= 50 then break end
  if slots(redis.call('HGET', P .. 'l:' .. lane, 'pool')) <= 0 then
    full = full + 1
  else
    serve(lane, math.min(most - released, 20))
  end
end

local next_due = redis.call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')[2]
local wait = next_due and math.max(0, next_due - now) or -1
if released >= most or looked >= 200 then wait = 0 end
return reply('released', released, wait)
