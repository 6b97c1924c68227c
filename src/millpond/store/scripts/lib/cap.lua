-- cap: what one user may have of a lane, however much is free in it.
--
-- A cap is a limit of calls with the scope of a user: {amount, window_ms, 'calls', in_ring}, of which each
-- user has its own window. It is the org's own rule and no provider counts it, so a call is counted when it is let
-- go, and for the user of the flow that leads it. What a user has taken forgets itself.
--
-- Who has had as much takes no turns until there is room again: `capped` of the lane tells when, and
-- `capped` of the partition when to look at the lane.

local FORGOTTEN_MS = 5000   -- after the longest window
local NOTHING_BEFORE = {complete = 0, before = 0}

-- The place of a user's windows: that of a lane which nobody else uses.
local function own_windows(lane, user) return lane .. ':by:' .. user end

local function caps_of(lane, written)
  written = written or redis.call('HGET', P .. 'l:' .. lane, 'caps')
  return written and written ~= '[]' and cjson.decode(written) or nil
end

-- What a user has taken of a cap. (To look leaves nothing behind.)
local function taken_by(own, cap)
  if cap[4] and redis.call('EXISTS', P .. 'l:' .. own) == 0 then return 0 end
  return taken(own, cap, NOTHING_BEFORE)
end

-- Calls that a user may still make, and if there are none, when.
local function cap_leaves(lane, caps, user)
  local own, left, at = own_windows(lane, user), math.huge, 0
  for _, cap in ipairs(caps) do
    local over = taken_by(own, cap) - cap[1]
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

-- Of each cap of a user what is used, by which calls where that is known, and when it has room again.
local function cap_views(lane, user)
  local own, views = own_windows(lane, user), {}
  for i, cap in ipairs(caps_of(lane) or {}) do
    local used = taken_by(own, cap)
    views[i] = {amount = cap[1], window = cap[2], used = used, taken_at = moments_of(own, cap),
      frees_at = used >= cap[1] and frees_at(own, cap, NOTHING_BEFORE, used - cap[1] + 1) or nil}
  end
  return views
end

local function user_windows(lane) return P .. 'l:' .. lane .. ':by' end

local function count_for_user(lane, caps, user, id)
  local own, longest, exact = own_windows(lane, user), 0, 0
  local stamps, keys = P .. 'l:' .. own .. ':s', {user_windows(lane)}
  for _, cap in ipairs(caps) do
    longest = math.max(longest, cap[2])
    if cap[4] then
      local r = ring(own, cap)
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
  for _, key in ipairs(keys) do redis.call('PEXPIRE', key, longest + FORGOTTEN_MS) end
end

-- What a user has taken is no more.
local function forget_user(lane, user)
  local own, caps = own_windows(lane, user), caps_of(lane) or {}
  local keys = {P .. 'l:' .. own, P .. 'l:' .. own .. ':s'}
  for _, cap in ipairs(caps) do keys[#keys + 1] = ring(own, cap).key end
  redis.call('UNLINK', unpack(keys))
  redis.call('SREM', user_windows(lane), user)
end

-- The partition knows when the first user of a lane has room again.
local function note_capped(lane)
  local first = lowest(P .. 'l:' .. lane .. ':capped')
  if first then
    redis.call('ZADD', P .. 'capped', first, lane)
  else
    redis.call('ZREM', P .. 'capped', lane)
  end
end

local function sit_out(lane, class, user, at)
  redis.call('ZADD', P .. 'l:' .. lane .. ':capped', at, class .. '|' .. user)
  note_capped(lane)
end

local function sits_out(lane, class, user)
  return redis.call('ZSCORE', P .. 'l:' .. lane .. ':capped', class .. '|' .. user)
end

-- Who has room again takes turns: at most `most` users of a lane.
local function let_in(lane, most)
  local capped = P .. 'l:' .. lane .. ':capped'
  for _, who in ipairs(redis.call('ZRANGE', capped, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
    redis.call('ZREM', capped, who)
    local class, user = string.match(who, '^(%a)|(.*)$')
    if redis.call('EXISTS', flows_level(lane, class, user)) == 1 then
      join(users_level(lane, class), user, BEHIND, BEHIND_EACH)
      join(classes_level(lane), class, 0, 0)
    end
  end
  note_capped(lane)
end

-- Other caps, or none: the next decision uses them, so whoever sits out is looked at again.
local function change_caps(lane, caps)
  local l, written = P .. 'l:' .. lane, '[]'
  if #caps > 0 then
    local rows = {}
    for i, cap in ipairs(caps) do rows[i] = {cap[1], cap[2], 'calls', cap[1] > EXACT_MOST} end
    written = cjson.encode(rows)
  end
  if redis.call('EXISTS', l .. ':capped') == 1 then
    redis.call('ZUNIONSTORE', l .. ':capped', 1, l .. ':capped', 'WEIGHTS', 0)
    note_capped(lane)
  end
  return written
end
