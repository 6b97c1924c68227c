#!lua flags=allow-oom
-- release: queued -> released
--
-- Lets calls go while every window of their lane has room, the quota has, and a worker has a
-- free slot: the lane with the lowest tag, in it the class, the user and the flow with the lowest
-- tags. Jobs that may share a call go with the first of them. What cannot move leaves the turn and
-- costs nothing until it is due again.
--
-- A call in flight counts in every window; once it has ended its stamp does, until the window
-- has passed. That is the least a client must count to be sure (docs/decisions/0002).
--
-- uses base turn flow window cap
-- ARGV  4 most   calls, at most 200
--
-- Replies  {'released', n, wait_ms}   wait_ms: until the next look at a lane, -1 if none is set

local SERVED_AT_ONCE = 20   -- calls of one lane before another has its turn
local LOOKED_MOST = 200     -- jobs
local LINGER_MS = 250       -- how long a pack that is not full waits for more of a flow that is being fed
local OTHER_CLASS = {i = 'b', b = 'i'}
local BURST = 2             -- calls of the bucket that paces bulk

local most = tonumber(arg[1])
local released, looked, look_at_most = 0, 0, LOOKED_MOST
local free = {}   -- pool -> free slots that no ready call will fill

-- Virtual time of the turn between lanes, and the id that was given last.
local v, last_given = unpack(redis.call('HMGET', M, 'v', 'call'))
v, last_given = tonumber(v) or 0, tonumber(last_given) or 0
local last_call = last_given
local next_due   -- when the next lane is due, by what was read and is written here
local next_room = lowest(P .. 'capped')   -- when a user who sits out has room again

local function slots(pool)
  if not free[pool] then
    free[pool] = (tonumber(redis.call('HGET', M, 'free:' .. pool)) or 0) - redis.call('LLEN', P .. 'ready:' .. pool)
  end
  return free[pool]
end

-- A lane leaves the turn with its tag, until it is due or somebody wakes it.
local function block(lane, tag, at)
  redis.call('ZREM', P .. 'turn', lane)
  redis.call('HSET', P .. 'l:' .. lane, 'tag', tag)
  if at then
    redis.call('ZADD', P .. 'due', at, lane)
    next_due = math.min(next_due or math.huge, at)
  end
end

-- ---------------------------------------------------------------- what limits leave

-- Calls that fit, and per limit of another unit how much is left of it. If no call fits, when one
-- may (nil: when a call in flight ends).
local function room(lane, limits, window, share, known)
  local fits, at, event, others = most, 0, false, {}
  for _, limit in ipairs(limits) do
    local amount, length, unit = limit[1], limit[2], limit[3]
    if unit == 'calls' and length == window and share < 1 then amount = math.max(1, math.floor(amount * share)) end
    local used = taken(lane, limit, known)
    if unit ~= 'calls' then
      others[#others + 1] = {unit = unit, amount = amount, left = amount - used, limit = limit}
    elseif used >= amount then
      fits = 0
      local ends = frees_at(lane, limit, known, used - amount + 1)
      if ends then at = math.max(at, ends) else event = true end
    else
      fits = math.min(fits, amount - used)
    end
  end
  redis.call('ZREMRANGEBYSCORE', P .. 'l:' .. lane .. ':s', '-inf', now - kept_ms(limits))
  return fits, not event and at or nil, others
end

-- Whether so much fits into the limits of other units, and if not, when it may. What is larger than a
-- limit goes alone, when all of the limit is free.
local function fits_others(s, units, alone)
  local at, fits = 0, true
  for _, other in ipairs(s.others) do
    local wanted = units[other.unit]
    local lacking = (alone and math.min(wanted, other.amount) or wanted) - other.left
    if lacking > 0 and not (other.unit == 'bulk' and wanted == 0) then
      fits = false
      at = math.max(at, frees_at(s.lane, other.limit, s.known, lacking) or math.huge)
    end
  end
  return fits, at < math.huge and at or nil
end

-- ---------------------------------------------------------------- whose turn it is

-- The member of a level whose turn it is. It is served from memory until another one's turn has come.
local function head_of(level)
  local two = redis.call('ZRANGE', level, 0, 1, 'WITHSCORES')
  if not two[1] then return nil end
  return {level = level, member = two[1], tag = tonumber(two[2]), rival = tonumber(two[4]) or math.huge}
end

-- What was served is written. `resting`: it has nothing in line.
local function put_back(head, resting)
  if resting then
    rest(head.level, head.member, head.tag)
  elseif head.moved then
    redis.call('ZADD', head.level, head.tag, head.member)
  end
end

-- A flow's line, read ahead.
local function open_line(head, ahead)
  local weight, pack, fed_at, lingers_until =
    unpack(redis.call('HMGET', P .. 'f:' .. head.member, 'weight', 'pack', 'fed_at', 'lingers_until'))
  head.weight, head.pack, head.fed_at = tonumber(weight), math.floor(tonumber(pack)), tonumber(fed_at) or 0
  head.lingers_until = tonumber(lingers_until)
  head.line, head.entries, head.taken, head.ahead = P .. 'f:' .. head.member .. ':q', {}, 0, ahead * head.pack
  head.reserved, head.gaps = 0, 0
end

local function close_line(head)
  if head.taken > 0 then redis.call('LTRIM', head.line, head.taken, -1) end
  head.entries, head.taken, head.job = {}, 0, nil
  if head.reserved > 0 then redis.call('HINCRBY', P .. 'f:' .. head.member, 'reserved', head.reserved) end
  if head.gaps > 0 then redis.call('HINCRBY', P .. 'f:' .. head.member, 'gaps', -head.gaps) end
  head.reserved, head.gaps = 0, 0
end

local function put_flow_back(user)
  if not user.flow then return end
  if user.flow.line then close_line(user.flow) end
  put_back(user.flow)
  user.flow = nil
end

-- The next job of a line that still waits. It stays in line until `take`.
local function peek(head)
  while not head.job and looked < look_at_most do
    if head.taken == #head.entries then
      close_line(head)
      head.entries = redis.call('LRANGE', head.line, 0, math.min(head.ahead, look_at_most - looked) - 1)
      if #head.entries == 0 then return nil end
    end
    local need, id, tokens, base, pack = string.match(head.entries[head.taken + 1], '^(%d+)|([^|]+)|(%d+)|(%d+)|(.*)$')
    if id and redis.call('HGET', P .. 'j:' .. id, 'state') == 'queued' then
      head.job = {id = id, flow = head.member, pack = pack, text = need, need = tonumber(need), tokens = tonumber(tokens),
        base = tonumber(base), reserve = 0}
    else   -- a gap: it has left, or its place is another one by now
      head.taken, head.gaps, looked = head.taken + 1, head.gaps + 1, looked + 1
    end
  end
  return head.job
end

local function take(head)
  head.job, head.taken, looked = nil, head.taken + 1, looked + 1
end

-- Whether a flow that is being fed should wait a moment, so that its pack becomes full.
local function lingers(class, head)
  if class == 'i' or head.pack == 1 or head.job.pack == '' or head.fed_at + LINGER_MS <= now then return false end
  if redis.call('LLEN', head.line) - head.taken >= head.pack then return false end
  local f = P .. 'f:' .. head.member
  local until_ms = head.lingers_until or now + LINGER_MS
  if until_ms <= now then return false end
  redis.call('HSET', f, 'lingers_until', until_ms)
  redis.call('ZADD', P .. 'soon', 'LT', until_ms, head.member)
  return true
end

-- (A user may be in both classes.)
local function is_capped(s, user)
  local of = s.left_of[user.member]
  if not of then
    of = {cap_leaves(s.lane, s.caps, user.member)}
    s.left_of[user.member] = of
  end
  user.room_at = of[2]
  return of[1] <= 0
end

-- A user has had as much as one may, and takes no turns until there is room again.
local function leave_out(s, class, user)
  looked = looked + 1
  put_flow_back(user)
  put_back(user, true)
  sit_out(s.lane, class, user.member, user.room_at)
  next_room = math.min(next_room or math.huge, user.room_at)
  s.users[class] = nil
end

-- The user and the flow whose turn it is in a class, and its next job; who has nothing in line rests.
-- nil: nobody of the class has anything in line, or enough was looked at. `riding`: it is for a pack
-- that goes anyway.
local function front(s, class, riding)
  while looked < look_at_most do
    local user = s.users[class] or head_of(users_level(s.lane, class))
    s.users[class] = user
    if not user then return nil end
    user.flow = user.flow or head_of(flows_level(s.lane, class, user.member))
    if not user.flow then
      put_back(user, true)
      s.users[class] = nil
    elseif s.caps and is_capped(s, user) then
      leave_out(s, class, user)
    else
      if not user.flow.line then open_line(user.flow, s.go) end
      local job = peek(user.flow)
      if job and (riding or not lingers(class, user.flow)) then return user, user.flow, job end
      if job or looked < look_at_most then
        close_line(user.flow)
        put_back(user.flow, true)
        user.flow = nil
      end
    end
  end
end

-- The flow that leads a call pays for it, and so do its user and its class; who rides along pays nothing.
local function charge(s, class, user, flow, may)
  user.weight = user.weight or s.weighted and tonumber(redis.call('HGET', P .. 'o:' .. s.org .. ':weights', user.member)) or 1
  flow.tag, flow.moved = flow.tag + 1 / flow.weight, true
  user.tag, user.moved = user.tag + 1 / user.weight, true
  local other, tag = OTHER_CLASS[class], s.classes[class]
  -- Who may not go now gets nothing back for it.
  if s.classes[other] and not may[other] then s.classes[other] = math.max(s.classes[other], tag) end
  s.classes[class], s.moved = tag + 1 / CLASS_WEIGHT[class], true
end

local function put_user_back(s, class)
  local user = s.users[class]
  put_flow_back(user)
  put_back(user)
  s.users[class] = nil
end

-- A call has gone: is it somebody else's turn?
local function move_on(s, class)
  local user = s.users[class]
  if not user then return end
  if user.tag >= user.rival then
    put_user_back(s, class)
  elseif user.flow and user.flow.tag >= user.flow.rival then
    put_flow_back(user)
  end
end

local function put_all_back(s)
  for class in pairs(CLASS_WEIGHT) do
    if s.users[class] then put_user_back(s, class) end
  end
  if not s.moved then return end
  for class, tag in pairs(s.classes) do redis.call('ZADD', classes_level(s.lane), tag, class) end
end

-- ---------------------------------------------------------------- letting go

local function add(units, inputs, characters, tokens)
  units.inputs, units.characters, units.tokens =
    units.inputs + inputs, units.characters + characters, units.tokens + tokens
end

-- More jobs for a call, while they may share it: of the flow whose turn it is, then of those after it.
local function fill(s, class, size, jobs, units)
  local key = jobs[1].pack
  look_at_most = LOOKED_MOST + size   -- a pack that was begun is not cut short
  while key ~= '' and #jobs < size do
    local _, flow, job = front(s, class, true)
    if not job or job.pack ~= key then break end
    local need = scaled(s.scale, job.need, job.base)
    add(units, 1, need, job.tokens)
    if units.characters > s.left or #s.others > 0 and not fits_others(s, units) then
      add(units, -1, -need, -job.tokens)
      break
    end
    job.reserve, jobs[#jobs + 1] = need, job
    flow.reserved = flow.reserved + need
    take(flow)
  end
  look_at_most = LOOKED_MOST
end

local function let_go(s, class, lead, jobs, units)
  last_call = last_call + 1
  local id = string.format('%x', last_call)
  local written = {}
  for i, job in ipairs(jobs) do
    redis.call('HSET', P .. 'j:' .. job.id, 'state', 'released', 'call', id)
    -- (as it stands in line, if it is the same: writing a number costs more than a word)
    written[i] = job.id .. '|' .. job.flow .. '|' .. (job.reserve == job.need and job.text or job.reserve)
  end
  redis.call('HSET', P .. 'c:' .. id, 'lane', s.lane, 'org', s.org, 'flow', lead, 'jobs', table.concat(written, ','),
    'need', units.characters, 'tokens', units.tokens, 'inputs', units.inputs, 'bulk', units.bulk,
    'state', 'ready', 'pool', s.pool, 'counted', s.counted)
  s.ids[#s.ids + 1] = id
  s.flight[#s.flight + 1] = now
  s.flight[#s.flight + 1] = id
  for unit, n in pairs(units) do s.units[unit] = (s.units[unit] or 0) + n end
  s.left = s.left - units.characters
  for _, other in ipairs(s.others) do other.left = other.left - units[other.unit] end
end

-- What one lane let go is written in one go.
local function write_down(s)
  if #s.ids == 0 then return end
  redis.call('ZADD', P .. 'l:' .. s.lane .. ':flight', unpack(s.flight))
  if #s.others > 0 then in_flight(s.lane, s.units, 1) end
  if s.counted == '1' then redis.call('HINCRBY', P .. 'o:' .. s.org, 'reserved', s.units.characters) end
  redis.call('RPUSH', P .. 'ready:' .. s.pool, unpack(s.ids))
  local bell = P .. 'bell:w:' .. s.pool
  for _ = redis.call('LLEN', bell) + 1, math.min(8, #s.ids) do redis.call('LPUSH', bell, 1) end
end

-- The bucket that paces: of bulk while somebody waits for answers, and of everything after refusals
-- that the books cannot explain. It is refilled as fast as the limit can be used for ever.
local function bucket_of(s, window, amount, share, latency, tokens, at)
  local capacity = s.careful and 1 or BURST
  local rate = amount * share / (window + (tonumber(latency) or 0))
  tokens = math.min(capacity, (tonumber(tokens) or capacity) + (now - (tonumber(at) or now)) * rate)
  return {tokens = tokens, rate = rate, window = window}
end

local function next_token_at(bucket)
  return now + math.min(math.ceil((1 - bucket.tokens) / bucket.rate), bucket.window)
end

-- The class whose turn it is of those that may go, which those are, and when bulk may if it may not.
local function whose_turn(s)
  if s.careful and s.bucket.tokens < 1 then return nil, {}, math.min(next_token_at(s.bucket), s.whole_at) end
  local bulk_at
  if s.bucket and s.bucket.tokens < 1 then bulk_at = next_token_at(s.bucket) end
  for _, other in ipairs(s.others) do
    if other.unit == 'bulk' and other.left < 1 then
      local at = frees_at(s.lane, other.limit, s.known, 1 - other.left)
      bulk_at = math.max(bulk_at or 0, at or math.huge)
    end
  end
  local i, b = s.classes.i, not bulk_at and s.classes.b or nil
  local class = i and (not b or i <= b) and 'i' or b and 'b' or nil
  return class, {i = true, b = not bulk_at}, bulk_at and bulk_at < math.huge and bulk_at or nil
end

-- Nothing of a lane waits. Once its windows are empty it is to cost nothing (see promote).
local function fall_idle(lane, tag, limits)
  block(lane, tag)
  local longest = 0
  for _, limit in ipairs(limits) do longest = math.max(longest, limit[2]) end
  redis.call('ZADD', P .. 'idle', now + longest, lane)
end

-- Lets up to `turn` calls of one lane go.
local function serve(lane, tag, turn)
  local l = P .. 'l:' .. lane
  local org, pool, counted, written, paused, shut_until, lane_life, trouble, latency, paced, chat_at, tokens, tokens_at,
    bound, p99, answers, share_then, share_at, complete, before, caps = unpack(redis.call('HMGET', l, 'org', 'pool',
      'counted', 'limits', 'paused', 'shut_until', 'life', 'trouble', 'latency', 'paced', 'chat_at', 'bucket', 'bucket_at',
      'bound', 'p99', 'answers', 'share', 'share_at', 'complete', 'before', 'caps'))
  if not org or paused then return block(lane, tag) end
  local status, quota, used, reserved, estimated, reserve, weighted = unpack(redis.call('HMGET', P .. 'o:' .. org,
    'status', 'quota', 'used', 'reserved', 'estimated', 'reserve', 'weighted'))
  if status == 'suspended' then return block(lane, tag) end
  if tonumber(shut_until or 0) > now then return block(lane, tag, tonumber(shut_until)) end
  if slots(pool) <= 0 then
    redis.call('ZADD', P .. 'full:' .. pool, tag, lane)
    return block(lane, tag)
  end
  if tonumber(lane_life) ~= life then
    if not all_reported() then return block(lane, tag, now + 100) end
    redis.call('HSET', l, 'life', life)
  end
  local probing = (tonumber(trouble) or 0) >= TROUBLE_MOST
  if probing and redis.call('EXISTS', l .. ':flight') == 1 then return block(lane, tag) end

  local limits = limits_of(lane, written)
  local window, amount = shortest_of(limits)
  local share = share_now(share_then, share_at, window)
  local known = {complete = tonumber(complete) or 0, before = tonumber(before) or 0}
  local fits, at, others = room(lane, limits, window, share, known)
  local s = {lane = lane, org = org, pool = pool, counted = counted, others = others, known = known,
    careful = share < 1, whole_at = now + math.ceil((1 - share) * window / SHARE_CLIMBS),
    users = {}, classes = {}, ids = {}, flight = {}, units = {}, caps = caps and caps_of(lane, caps), left_of = {},
    left = counted == '1' and left_of(quota, used, reserved, estimated) or math.huge,
    scale = counted == '1' and scale_of(reserve, bound, p99, answers) or 1, weighted = weighted}
  if fits <= 0 then
    -- The share climbs, so a careful lane is looked at again after a window at the latest.
    return block(lane, tag, s.careful and math.min(at or math.huge, now + window) or at)
  end
  local level = redis.call('ZRANGE', classes_level(lane), 0, -1, 'WITHSCORES')
  if not level[1] then return fall_idle(lane, tag, limits) end
  for i = 1, #level, 2 do s.classes[level[i]] = tonumber(level[i + 1]) end
  local even = window > 0 and (paced == '1' or now - (tonumber(chat_at) or -math.huge) < window)
  if even or s.careful or (window > 0 and s.classes.i) then s.bucket = bucket_of(s, window, amount, share, latency, tokens, tokens_at) end

  s.go = math.min(turn, fits, slots(pool), probing and 1 or most)
  local chats, stuck_at, stuck = 0, nil, false
  while #s.ids < s.go and looked < LOOKED_MOST and not stuck do
    local class, may, bulk_at = whose_turn(s)
    if not class then
      stuck, stuck_at = true, bulk_at
      break
    end
    local user, flow, job = front(s, class)
    if not job then
      if looked < LOOKED_MOST then   -- nobody of the class has anything in line
        rest(classes_level(lane), class, s.classes[class])
        s.classes[class] = nil
        if class == 'i' and chats == 0 and not even and not s.careful then s.bucket = nil end   -- nobody waits
        if not next(s.classes) then break end
      end
    else
      local need = scaled(s.scale, job.need, job.base)
      local units = {inputs = 1, characters = need, tokens = job.tokens, bulk = class == 'b' and 1 or 0}
      local suits, suits_at = fits_others(s, units, true)
      if need > s.left then
        redis.call('ZADD', P .. 'f:' .. job.flow .. ':parked', need, job.id)
        note_parked(org, job.flow)
        take(flow)
      elseif not suits then
        stuck, stuck_at = true, math.min(suits_at or math.huge, bulk_at or math.huge)
      else
        job.reserve = need
        flow.reserved = flow.reserved + need
        take(flow)
        local jobs, lead, size = {job}, flow.member, flow.pack
        charge(s, class, user, flow, may)
        if flow.lingers_until then
          redis.call('HDEL', P .. 'f:' .. lead, 'lingers_until')
          flow.lingers_until = nil
        end
        fill(s, class, size, jobs, units)
        let_go(s, class, lead, jobs, units)
        if s.caps then
          count_for_user(lane, s.caps, user.member, s.ids[#s.ids])
          s.left_of[user.member] = nil
        end
        move_on(s, class)
        if s.bucket then s.bucket.tokens = s.bucket.tokens - 1 end
        if class == 'i' then chats = chats + 1 end
      end
    end
  end
  put_all_back(s)
  write_down(s)
  local gone = #s.ids
  released = released + gone
  free[pool] = free[pool] - gone
  if s.bucket and gone > 0 then redis.call('HSET', l, 'bucket', s.bucket.tokens, 'bucket_at', now) end
  if chats > 0 then redis.call('HSET', l, 'chat_at', now) end
  v = tag
  if stuck then
    block(lane, tag + gone, stuck_at and stuck_at < math.huge and stuck_at or nil)
  elseif not next(s.classes) then
    fall_idle(lane, tag + gone, limits)
  else
    redis.call('ZADD', P .. 'turn', tag + gone, lane)
  end
end

-- Takes turns again, from where virtual time stands.
local function take_turns(lane)
  local org, tag = unpack(redis.call('HMGET', P .. 'l:' .. lane, 'org', 'tag'))
  if org then redis.call('ZADD', P .. 'turn', math.max(v, tonumber(tag)), lane) end   -- else it is no more
end

if next_room and next_room <= now then
  local let_in_most = LOOKED_MOST
  for _, lane in ipairs(redis.call('ZRANGE', P .. 'capped', '-inf', now, 'BYSCORE', 'LIMIT', 0, 50)) do
    if let_in_most <= 0 then break end
    let_in_most = let_in_most - 1 - let_in(lane, let_in_most)
    take_turns(lane)
  end
  next_room = lowest(P .. 'capped')
end
next_due = lowest(P .. 'due')
if next_due and next_due <= now then
  for _, lane in ipairs(redis.call('ZRANGE', P .. 'due', '-inf', now, 'BYSCORE', 'LIMIT', 0, 50)) do
    redis.call('ZREM', P .. 'due', lane)
    take_turns(lane)
  end
  next_due = lowest(P .. 'due')
end

-- Slots that the lanes in turn have left go to those that waited for one.
local function those_who_waited()
  local any = false
  for pool, n in pairs(free) do
    local waiting = n > 0 and redis.call('ZPOPMIN', P .. 'full:' .. pool, 10) or {}
    for i = 1, #waiting, 2 do
      any = true
      take_turns(waiting[i])
    end
  end
  return any
end

local rounds = 0
while released < most and looked < LOOKED_MOST and rounds < 250 do
  rounds = rounds + 1
  local lane, tag = unpack(redis.call('ZRANGE', P .. 'turn', 0, 0, 'WITHSCORES'))
  if lane then
    serve(lane, tonumber(tag), math.min(most - released, SERVED_AT_ONCE))
  elseif not those_who_waited() then
    break
  end
end
if last_call > last_given then redis.call('HSET', M, 'v', v, 'call', string.format('%d', last_call)) end

local next_look = math.min(next_due or math.huge, next_room or math.huge)
local wait = next_look < math.huge and math.max(0, next_look - now) or -1
if released >= most or looked >= LOOKED_MOST or rounds >= 250 then wait = 0 end
return reply('released', released, wait)
