-- window: what is taken of a lane's limits, behind one interface.
--
-- A limit is {amount, window_ms, unit, in_ring}; window 0 means so many at once. Calls are stamped
-- exactly, one zset for all windows of a lane, as long as their amount is small. All else is counted in
-- rings: 480 counters a window and their total, so that a day costs no more than a minute. A counter
-- counts until all of it is outside, which loses at most a 478th of the window and never lets too much
-- through. The unit `bulk` is calls that nobody waits for.

local RING, RING_AHEAD_MS = 480, 2000
local EXACT_MOST = 1000   -- calls of a window that are stamped one by one
local KEPT_MS = 15000       -- stamps where no window needs them: they tell an ended call from a forgotten one
-- A limit so large bounds nothing: it is there to count until the real one is known.
local COUNTS_ONLY = 1e9

local known_limits = {}

local function limits_of(lane, written)
  if not known_limits[lane] then
    known_limits[lane] = cjson.decode(written or redis.call('HGET', P .. 'l:' .. lane, 'limits') or '[]')
  end
  return known_limits[lane]
end

-- Units of a call, other than calls, that some limit of the lane counts.
local function units_of(limits)
  local units, seen = {}, {calls = true}
  for _, limit in ipairs(limits) do
    if not seen[limit[3]] then units[#units + 1] = limit[3] end
    seen[limit[3]] = true
  end
  return units
end

local function ring(lane, limit)
  local name = limit[3] .. ':' .. limit[2]
  return {key = P .. 'l:' .. lane .. ':d:' .. name, lane = P .. 'l:' .. lane, total = 'total:' .. name, base = 'base:' .. name,
    window = limit[2], width = math.ceil((limit[2] + RING_AHEAD_MS) / (RING - 2))}
end

-- Counters that are wholly outside leave the total. Returns the first one kept, and the total.
local function ring_now(r)
  local base, total = unpack(redis.call('HMGET', r.lane, r.base, r.total))
  local first = math.floor((now - r.window) / r.width)
  if not base then redis.call('HSET', r.lane, r.base, first) end
  base, total = tonumber(base) or first, tonumber(total) or 0
  if base < first then
    if first - base >= RING then
      redis.call('DEL', r.key)
      total = 0
    else
      local from, upto = base % RING, (first - 1) % RING
      local spans = from <= upto and {{from, upto}} or {{from, RING - 1}, {0, upto}}
      for _, span in ipairs(spans) do
        local old = redis.call('GETRANGE', r.key, span[1] * 4, span[2] * 4 + 3)
        if string.find(old, '[^%z]') then
          for i = 1, #old - 3, 4 do total = total - struct.unpack('>I4', old, i) end
          redis.call('SETRANGE', r.key, span[1] * 4, string.rep('\0', #old))
        end
      end
    end
    redis.call('HSET', r.lane, r.base, first, r.total, total)
  end
  return math.max(base, first), total
end

local function ring_add(r, at, units)
  local first = ring_now(r)
  local b = math.floor(at / r.width)
  if units <= 0 or at <= now - r.window then return end
  b = math.max(first, math.min(b, first + RING - 1))
  redis.call('BITFIELD', r.key, 'OVERFLOW', 'SAT', 'INCRBY', 'u32', '#' .. b % RING, units)
  redis.call('HINCRBY', r.lane, r.total, units)
end

-- When so many units will have left the ring; nil: not all of it would be enough.
local function ring_frees(r, units)
  local first = ring_now(r)
  local all = redis.call('GETRANGE', r.key, 0, RING * 4 - 1)
  for b = first, first + RING - 1 do
    local i = (b % RING) * 4 + 1
    if i + 3 <= #all then
      units = units - struct.unpack('>I4', all, i)
      if units <= 0 then return (b + 1) * r.width + r.window end
    end
  end
end

-- Calls in flight hold what they may use at most.
local function in_flight(lane, units, by)
  for _, unit in ipairs(units_of(limits_of(lane))) do
    if units[unit] ~= 0 then redis.call('HINCRBY', P .. 'l:' .. lane, 'flight:' .. unit, by * units[unit]) end
  end
end

-- What is taken of one limit. `known` are the lane's fields complete and before: so many calls were
-- stamped before that moment and are known by number only (see limit.lua).
local function taken(lane, limit, known)
  local l, window, unit = P .. 'l:' .. lane, limit[2], limit[3]
  local flight = unit == 'calls' and redis.call('ZCARD', l .. ':flight')
    or tonumber(redis.call('HGET', l, 'flight:' .. unit)) or 0
  if window == 0 then return flight end
  if limit[4] then
    local _, total = ring_now(ring(lane, limit))
    return flight + total
  end
  local before = known.complete > now - window and known.before or 0
  return flight + before + redis.call('ZCOUNT', l .. ':s', '(' .. now - window, '+inf')
end

-- When `over` less of a limit will be taken; nil: when a call in flight ends.
local function frees_at(lane, limit, known, over)
  local window = limit[2]
  if window == 0 then return nil end
  if limit[4] then return ring_frees(ring(lane, limit), over) end
  local at = known.before > 0 and known.complete > now - window and known.complete + window or math.huge
  local stamp = redis.call('ZRANGE', P .. 'l:' .. lane .. ':s', '(' .. now - window, '+inf', 'BYSCORE',
    'LIMIT', over - 1, 1, 'WITHSCORES')[2]
  if stamp then at = math.min(at, stamp + window) end
  return at < math.huge and at or nil
end

local function known_of(lane)
  local complete, before = unpack(redis.call('HMGET', P .. 'l:' .. lane, 'complete', 'before'))
  return {complete = tonumber(complete) or 0, before = tonumber(before) or 0}
end

-- The shortest window of calls, with its amount (0 if there is none).
local function shortest_of(limits)
  local window, amount = math.huge, 0
  for _, limit in ipairs(limits) do
    if limit[2] > 0 and limit[2] < window and limit[3] == 'calls' then window, amount = limit[2], limit[1] end
  end
  return amount > 0 and window or 0, amount
end

-- How long stamps are kept.
local function kept_ms(limits)
  local kept = 0
  for _, limit in ipairs(limits) do
    if limit[3] == 'calls' and not limit[4] then kept = math.max(kept, limit[2]) end
  end
  return kept > 0 and kept or KEPT_MS
end

-- What share of its limits a lane uses. All of them, until the provider refuses calls that our
-- books allow: somebody else uses the key, or it counts differently. Each refusal takes away what
-- one call is of the limit; every window gives back a twentieth.
local SHARE_LEAST, SHARE_CLIMBS = 0.1, 0.05

local function share_now(share, since, window)
  if not share or window == 0 then return 1 end
  return math.min(1, share + SHARE_CLIMBS * (now - since) / window)
end

local function share_of(lane, window)
  local share, since = unpack(redis.call('HMGET', P .. 'l:' .. lane, 'share', 'share_at'))
  return share_now(share, since, window)
end

-- Calls in a row whose jobs fail at their first try: then the provider is unwell, not they.
local TROUBLE_MOST = 10

-- A call that was sent is counted as of `at`, with what it really used.
local function put_stamp(lane, id, at, units)
  local l = P .. 'l:' .. lane
  if redis.call('ZADD', l .. ':s', 'NX', at, id) == 0 then return false end
  redis.call('HINCRBY', l, 'ever', 1)
  for _, limit in ipairs(limits_of(lane)) do
    if limit[4] then ring_add(ring(lane, limit), at, limit[3] == 'calls' and 1 or units[limit[3]]) end
  end
  return true
end
