-- limit: changing the limits of a lane, and keeping what is known of their use.

-- A lane whose state was lost counts as full for its windows up to so long. (Longer ones would stand
-- still for a day: they begin with what is counted from then on.)
local LOST_WAIT_MOST_MS = 3600000
local STAMP_AHEAD_MS = 2000   -- a call that was given up may be counted a moment later
local NO_UNITS = {inputs = 0, characters = 0, tokens = 0, bulk = 0}
local LEDGER_READ_MOST, LEDGER_READ_AT_ONCE = 5000, 100   -- rows

local function same_ring(limits, wanted)
  for _, limit in ipairs(limits) do
    if limit[4] and limit[2] == wanted[2] and limit[3] == wanted[3] then return limit end
  end
  return false
end

-- Large amounts are counted in rings, and a window that once was stays so.
local function with_rings(limits, old)
  for i, limit in ipairs(limits) do
    limits[i] = {limit[1], limit[2], limit[3],
      limit[2] > 0 and (limit[3] ~= 'calls' or limit[1] > EXACT_MOST or same_ring(old, limit) ~= false)}
  end
  return limits
end

-- Calls in flight are counted in a unit that nobody counted before.
local function count_flight(lane, units)
  local sums = {}
  for _, id in ipairs(redis.call('ZRANGE', P .. 'l:' .. lane .. ':flight', 0, -1)) do
    local call = read_call(id)
    for unit, n in pairs(call and call.units or {}) do sums[unit] = (sums[unit] or 0) + n end
  end
  for _, unit in ipairs(units) do redis.call('HSET', P .. 'l:' .. lane, 'flight:' .. unit, sums[unit] or 0) end
end

-- When a ring was as full as can be, since nothing was known.
local function full_field(limit) return 'full:' .. limit[3] .. ':' .. limit[2] end

-- A ring begins: with the stamps that are there, and older calls as of the moment up to which they are
-- known by number only. Of other units nothing is known, so it starts as full as can be.
local function begin_ring(lane, limit, complete, before)
  local r, l = ring(lane, limit), P .. 'l:' .. lane
  if limit[3] ~= 'calls' and limit[3] ~= 'bulk' then
    -- The last call may still be counted a moment from now.
    local newest = tonumber(redis.call('ZRANGE', l .. ':s', -1, -1, 'WITHSCORES')[2]) or 0
    if limit[1] < COUNTS_ONLY then
      ring_add(r, math.max(now, newest), limit[1])
      redis.call('HSET', l, full_field(limit), math.max(now, newest))
    end
    return
  end
  ring_add(r, complete, before)
  local stamps = redis.call('ZRANGE', l .. ':s', '(' .. now - limit[2], '+inf', 'BYSCORE', 'WITHSCORES')
  for i = 2, #stamps, 2 do ring_add(r, tonumber(stamps[i]), 1) end
end

-- A limit is raised whose ring began as full as can be: there may have been more.
local function fill_up(lane, limit, was)
  local r = ring(lane, limit)
  local at = tonumber(redis.call('HGET', r.lane, full_field(limit)))
  if at and limit[1] > was[1] and limit[1] < COUNTS_ONLY then ring_add(r, at, limit[1] - was[1]) end
end

-- So many calls at most were made in a window before its stamps begin.
local function made_before(lane, old, window, ever)
  local l = P .. 'l:' .. lane
  local most = ever - redis.call('ZCARD', l .. ':s')
  for _, limit in ipairs(old) do
    if limit[4] and limit[3] == 'calls' and limit[2] >= window then
      local _, total = ring_now(ring(lane, limit))
      most = math.min(most, total - redis.call('ZCOUNT', l .. ':s', '(' .. now - limit[2], '+inf'))
    end
  end
  return math.max(0, most)
end

-- Puts other limits in the place of those that a lane has.
local function change_limits(lane, limits)
  local l, old = P .. 'l:' .. lane, limits_of(lane)
  limits = with_rings(limits, old)
  local ever, complete, before = unpack(redis.call('HMGET', l, 'ever', 'complete', 'before'))
  ever, complete, before = tonumber(ever) or 0, tonumber(complete) or now, tonumber(before) or 0
  if ever > 0 then
    -- Stamps are kept for the longest window. If there is to be a longer one, they are complete only
    -- from some moment on: as many calls as were stamped before and are gone count as of that moment.
    local since = math.max(complete, now - kept_ms(old))
    local longest = kept_ms(limits)
    if longest > kept_ms(old) then
      complete, before = since, made_before(lane, old, longest, ever)
    end
    -- What a lost lane counts as full is not what was made: it may have been more under higher limits.
    if tonumber(redis.call('HGET', l, 'lost_at')) == complete then
      for _, limit in ipairs(limits) do
        if limit[3] == 'calls' and not limit[4] and limit[2] <= LOST_WAIT_MOST_MS and limit[1] < COUNTS_ONLY then
          before = math.max(before, limit[1])
        end
      end
    end
    for _, limit in ipairs(limits) do
      local was = limit[4] and same_ring(old, limit)
      if was then
        fill_up(lane, limit, was)
      elseif limit[4] then
        begin_ring(lane, limit, since, made_before(lane, old, limit[2], ever))
      end
    end
  end
  for _, limit in ipairs(old) do
    if limit[4] and not same_ring(limits, limit) then
      local r = ring(lane, limit)
      redis.call('DEL', r.key)
      redis.call('HDEL', l, r.base, r.total, full_field(limit))
    end
  end
  redis.call('HSET', l, 'limits', #limits > 0 and cjson.encode(limits) or '[]', 'complete', complete, 'before', before)
  known_limits[lane] = nil
  local counted, fresh = {}, {}
  for _, unit in ipairs(units_of(old)) do counted[unit] = true end
  for _, unit in ipairs(units_of(limits)) do
    if not counted[unit] then fresh[#fresh + 1] = unit end
    counted[unit] = 'still'
  end
  count_flight(lane, fresh)
  for unit, still in pairs(counted) do
    if still ~= 'still' then redis.call('HDEL', l, 'flight:' .. unit) end
  end
end

-- The calls of a lane in the last while, as the org's ledger tells, with the moments of their stamps; nil if the
-- ledger does not reach back so far, or tells of too many. A stamp may be a little later than its row.
local function calls_by_ledger(org, lane, while_ms)
  local calls, before = {}, '+'
  for _ = 1, LEDGER_READ_MOST / LEDGER_READ_AT_ONCE do
    local rows = redis.call('XREVRANGE', P .. 'o:' .. org .. ':led', before, '-', 'COUNT', LEDGER_READ_AT_ONCE)
    for _, row in ipairs(rows) do
      local of = {}
      for i = 1, #row[2], 2 do of[row[2][i]] = row[2][i + 1] end
      if tonumber(of.at) <= now - while_ms - STAMP_AHEAD_MS then return calls end
      if of.lane == lane then calls[#calls + 1] = {id = of.call, at = tonumber(of.counted) or of.at + STAMP_AHEAD_MS} end
      before = '(' .. row[1]
    end
    if #rows < LEDGER_READ_AT_ONCE then return nil end
  end
end

-- What a lane counted was lost, though calls were made. Calls that have ended are counted by the ledger, if
-- it tells of them, else the windows count as full; those that are on their way are in flight again.
local function count_again(lane)
  local l, before, ever = P .. 'l:' .. lane, 0, 0
  local org, counted, pool = unpack(redis.call('HMGET', l, 'org', 'counted', 'pool'))
  local longest, calls = 0, nil
  for _, limit in ipairs(limits_of(lane)) do
    if limit[3] == 'calls' and limit[2] <= LOST_WAIT_MOST_MS then longest = math.max(longest, limit[2]) end
  end
  if counted == '1' then calls = calls_by_ledger(org, lane, longest) end
  for _, limit in ipairs(limits_of(lane)) do
    if limit[2] > 0 and limit[2] <= LOST_WAIT_MOST_MS and not (calls and limit[3] == 'calls') then
      if limit[4] then
        if limit[1] < COUNTS_ONLY then
          ring_add(ring(lane, limit), now, limit[1])
          redis.call('HSET', l, full_field(limit), now)
        end
      else
        before = math.max(before, limit[1])
      end
      if limit[3] == 'calls' and limit[1] < COUNTS_ONLY then ever = math.max(ever, limit[1]) end
    end
  end
  redis.call('HSET', l, 'complete', now, 'before', before, 'ever', ever)
  if not calls then redis.call('HSET', l, 'lost_at', now) end
  calls = calls or {}
  for i = #calls, 1, -1 do put_stamp(lane, calls[i].id, calls[i].at, NO_UNITS) end   -- the first row of a call holds
  local ids = redis.call('LRANGE', P .. 'ready:' .. pool, 0, 9999)
  for _, worker in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    for _, id in ipairs(redis.call('SMEMBERS', P .. 'wc:' .. worker)) do ids[#ids + 1] = id end
  end
  for _, id in ipairs(ids) do
    local c = P .. 'c:' .. id
    local of, of_org = unpack(redis.call('HMGET', c, 'lane', 'org'))
    if of == lane then
      redis.call('ZADD', l .. ':flight', 'NX', now, id)
      if of_org == '' then
        redis.call('HSET', c, 'org', org, 'counted', counted)
        count(read_call(id), 'reserved', 1)
      end
    end
  end
  count_flight(lane, units_of(limits_of(lane)))
end
