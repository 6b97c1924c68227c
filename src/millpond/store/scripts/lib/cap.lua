-- cap: what one user may have of a lane, however much is free in it.
--
-- A cap is a limit of calls with the scope of a user: {amount, window_ms, 'calls', in_ring}, of which each
-- user has its own window. It is the org's own rule and no provider counts it, so a call is counted when it is let
-- go, and for the user of the flow that leads it. What a user has taken forgets itself.
--
-- Who has had as much takes no turns until there is room again: `capped` of the lane tells when, and
-- `capped` of the partition when to look at the lane.

local FORGOTTEN_MS = 86400000   -- after the longest window: a server's clock may have been stepped
local NOTHING_BEFORE = {complete = 0, before = 0}

-- The place of a user's windows: that of a lane which nobody else uses, whatever is in the name.
local function own_windows(lane, user) return lane .. ':by:' .. #user .. ':' .. user end

local function user_windows(lane) return P .. 'l:' .. lane .. ':by' end

local function caps_of(lane, written)
  written = written or redis.call('HGET', P .. 'l:' .. lane, 'caps')
  return written and written ~= '[]' and cjson.decode(written) or nil
end

-- A cap as its user's windows know it: until there are counters of it, by the stamps that there are.
local function as_known(own, cap)
  if not cap[4] or redis.call('HEXISTS', P .. 'l:' .. own, ring(own, cap).base) == 1 then return cap end
  return {cap[1], cap[2], cap[3], false}
end

-- Calls that a user may still make, and if there are none, when.
local function cap_leaves(lane, caps, user)
  local own, left, at = own_windows(lane, user), math.huge, 0
  for _, cap in ipairs(caps) do
    cap = as_known(own, cap)
    local over = taken(own, cap, NOTHING_BEFORE) - cap[1]
    left = math.min(left, -over)
    if over >= 0 then at = math.max(at, frees_at(own, cap, NOTHING_BEFORE, over + 1) or now + cap[2]) end
  end
  return left, at
end

-- The moments of the calls that an exact cap counts.
local function moments_of(own, cap)
  local moments, stamps = {}, {}
  if not cap[4] then
    stamps = redis.call('ZRANGE', P .. 'l:' .. own .. ':s', '(' .. now - cap[2], '+inf', 'BYSCORE', 'WITHSCORES')
  end
  for i = 2, #stamps, 2 do moments[#moments + 1] = tonumber(stamps[i]) end
  return moments
end

-- Of each cap of a user what is used, by which calls where that is known, and when it has room again. (To look
-- leaves nothing behind.)
local function cap_views(lane, user)
  local own, views = own_windows(lane, user), {}
  for i, cap in ipairs(caps_of(lane) or {}) do
    cap = as_known(own, cap)
    local used = taken(own, cap, NOTHING_BEFORE)
    views[i] = {amount = cap[1], window = cap[2], used = used, taken_at = moments_of(own, cap),
      frees_at = used >= cap[1] and frees_at(own, cap, NOTHING_BEFORE, used - cap[1] + 1) or nil}
  end
  return views
end

local function lapses(key, after_ms)
  if redis.call('PTTL', key) < after_ms then redis.call('PEXPIRE', key, after_ms) end
end

local function count_for_user(lane, caps, user, id)
  local own, longest, exact = own_windows(lane, user), 0, 0
  local stamps, keys = P .. 'l:' .. own .. ':s', {user_windows(lane)}
  for _, cap in ipairs(caps) do
    longest = math.max(longest, cap[2])
    if cap[4] then
      local r = ring(own, cap)
      if as_known(own, cap) ~= cap then   -- counters begin with the stamps that there are
        for _, at in ipairs(moments_of(own, {cap[1], cap[2], cap[3], false})) do ring_add(r, at, 1) end
      end
      ring_add(r, now, 1)
      keys[#keys + 1], keys[#keys + 2] = r.key, r.lane
    else
      exact = math.max(exact, cap[2])
    end
  end
  if exact > 0 then
    redis.call('ZREMRANGEBYSCORE', stamps, '-inf', now - exact)
    redis.call('ZADD', stamps, now, id)
    keys[#keys + 1] = stamps
  end
  redis.call('SADD', keys[1], user)
  for _, key in ipairs(keys) do lapses(key, longest + FORGOTTEN_MS) end
end

-- What a user has taken is no more.
local function forget_user(lane, user)
  local own = P .. 'l:' .. own_windows(lane, user)
  local keys = {own, own .. ':s'}
  for _, field in ipairs(redis.call('HKEYS', own)) do
    local name = string.match(field, '^base:(.*)$')
    if name then keys[#keys + 1] = own .. ':d:' .. name end
  end
  redis.call('UNLINK', unpack(keys))
  redis.call('SREM', user_windows(lane), user)
end

-- Users of a lane who sit out, by when there is room; `:old`: under other caps, to be looked at anew.
local function sitting_out(lane) return P .. 'l:' .. lane .. ':capped' end

-- The partition knows when the first user of a lane has room again.
local function note_capped(lane)
  local capped = sitting_out(lane)
  local first = redis.call('EXISTS', capped .. ':old') == 1 and now or lowest(capped)
  if first then
    redis.call('ZADD', P .. 'capped', first, lane)
  else
    redis.call('ZREM', P .. 'capped', lane)
  end
end

local function sit_out(lane, class, user, at)
  redis.call('ZADD', sitting_out(lane), at, class .. '|' .. user)
  note_capped(lane)
end

local function sits_out(lane, class, user)
  local who, capped = class .. '|' .. user, sitting_out(lane)
  return redis.call('ZSCORE', capped, who) or redis.call('ZSCORE', capped .. ':old', who)
end

-- Who has room again takes turns: at most `most` users of a lane. How many there were.
local function let_in(lane, most)
  local capped = sitting_out(lane)
  local from, whom = capped .. ':old', redis.call('ZRANGE', capped .. ':old', 0, most - 1)
  if #whom == 0 then
    from, whom = capped, redis.call('ZRANGE', capped, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
  end
  for _, who in ipairs(whom) do
    redis.call('ZREM', from, who)
    local class, user = string.match(who, '^(%a)|(.*)$')
    if redis.call('EXISTS', flows_level(lane, class, user)) == 1 then
      join(users_level(lane, class), user, BEHIND, BEHIND_EACH)
      join(classes_level(lane), class, 0, 0)
    end
  end
  note_capped(lane)
  return #whom
end

local function is_ring(caps, window)
  for _, cap in ipairs(caps or {}) do
    if cap[2] == window and cap[4] then return true end
  end
  return false
end

-- Other caps, or none, as they are written: the next decision uses them, so whoever sits out is looked at again. A
-- window that was counted in a ring stays so.
local function change_caps(lane, caps)
  local old, rows = caps_of(lane), {}
  for i, cap in ipairs(caps) do
    rows[i] = {cap[1], cap[2], 'calls', cap[1] > EXACT_MOST or is_ring(old, cap[2])}
  end
  local capped = sitting_out(lane)
  if redis.call('EXISTS', capped) == 1 then
    if redis.call('EXISTS', capped .. ':old') == 1 then
      redis.call('ZUNIONSTORE', capped .. ':old', 2, capped, capped .. ':old')
      redis.call('UNLINK', capped)
    else
      redis.call('RENAME', capped, capped .. ':old')
    end
    note_capped(lane)
  end
  return #rows > 0 and cjson.encode(rows) or '[]'
end
