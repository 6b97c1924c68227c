#!lua
-- set: an org, its lanes and a flow are as told
--
-- Opens them or changes them; what is not named stays. The next decision uses what is set here. What
-- is known of used limits and quota stays too. Each change has a version and a row in the org's audit. What is
-- told together holds together: no decision sees half of it.
--
-- uses base turn flow window cap hold limit terms audit review
-- ARGV  4 by       who says so
--       5 changes  JSON, each part may be absent:
--           org    {id, quota: characters or 'none', status: active | suspended, reserve: strict | p99,
--                   mode, weights: {user: weight}, name: for people, new: true, it must not be there yet}
--           lane   {id, pool: whose workers make its calls, counted: its characters count against the quota,
--                   limits: [[amount, window_ms (0: at once), unit], ...], if_new: true, those of a lane that has some stay,
--                   caps: [[calls, window_ms], ...] of a user, all in the place of those there are, credit: the provider's service time
--                   is believed, paced: bulk always goes evenly, paused: a reason or '', again: true, to try
--                   a lane that is shut or that a refused key paused; lost: true, calls were made that the server knows nothing of}
--           lanes  more of the org's lanes, each told as `lane` is
--           flow   {id, user, class: i | b, weight, attempts: failures that a job may have, crashes: deaths of
--                   a worker that a job may see, pack: jobs of one call at most, paused: true or false,
--                   single: true, its jobs are kept with their answers, each by itself}
--           application  {number, checklist: JSON}: by this it is approved; said again by the same, all else that is
--                   told has been done before and is left alone
--           why    for the audit
--       6 common   what all jobs of the flow share; kept for workers as it is; '': as it was
--
-- Replies  {'set', version}
--          {'unknown', what, id}   a part that is not there, and is not told whole; or an application
--          {'known'}           there is an org of this id
--          {'purging'}         it is being erased, and changes no more, but for a flow that is there
--          {'stage', stage}    the application cannot be approved from there

local READY_MOST, LANES_MOST = 10000, 200

local by, told, common = arg[1], cjson.decode(arg[2]), arg[3]
local org, lane, flow, approved, why = told.org, told.lane, told.flow, told.application, told.why or ''
local o = P .. 'o:' .. org.id
local changes = {}

local function text(value)
  if type(value) == 'boolean' then return value and '1' or '0' end
  if type(value) == 'number' then return string.format('%.17g', value) end
  return value
end

-- Writes the fields that are told and other than before, and notes them. True: some were.
local function write(what, id, key, fields)
  local any = false
  for field, value in pairs(fields) do
    local old, new = redis.call('HGET', key, field), text(value)
    if old ~= new then
      redis.call('HSET', key, field, new)
      changes[#changes + 1] = {what, id, field, old or '', new}
      any = true
    end
  end
  return any
end

local function open_org()
  local stopped = redis.call('HGET', o, 'status') == 'suspended'
  if org.new then redis.call('HSET', o, 'created', now) end
  write('org', org.id, o, {quota = org.quota, status = org.status, mode = org.mode, reserve = org.reserve, name = org.name})
  if org.weights then
    write('weights', org.id, o .. ':weights', org.weights)
    redis.call('HSET', o, 'weighted', 1)
  end
  redis.call('SADD', P .. 'orgs', org.id)
  if org.quota then tell_crossings(org.id) end
  look_at_parked(org.id)
  if stopped and org.status == 'active' then
    for _, one in ipairs(redis.call('SRANDMEMBER', o .. ':lanes', LANES_MOST)) do wake(one) end
  end
end

local function open_lane(lane)
  local l = P .. 'l:' .. lane.id
  local known, was_there = redis.call('HEXISTS', l, 'org') == 1, false
  if not known then
    begin_lane(lane.id, org.id)
    was_there = redis.call('SADD', o .. ':lanes', lane.id) == 0
  end
  write('lane', lane.id, l, {pool = lane.pool, counted = lane.counted, credit = lane.credit, paced = lane.paced})
  if lane.limits and not (lane.if_new and #limits_of(lane.id) > 0) then
    local old = cjson.encode(limits_of(lane.id))
    change_limits(lane.id, lane.limits)
    local new = cjson.encode(limits_of(lane.id))
    if old ~= new then
      changes[#changes + 1] = {'lane', lane.id, 'limits', old, new}
      redis.call('HDEL', l, 'share', 'share_at')
    end
  end
  if lane.caps then write('lane', lane.id, l, {caps = change_caps(lane.id, lane.caps)}) end
  -- A lane that an org or a flow knows and that is not there was lost, and calls were made in it.
  was_there = was_there or flow and redis.call('HGET', P .. 'f:' .. flow.id, 'lane') == lane.id
  if not known and (lane.lost or was_there) then count_again(lane.id) end
  local paused = redis.call('HGET', l, 'paused')
  if paused and (lane.paused == '' or (lane.again and not string.find(paused, BY_HAND, 1, true))) then
    redis.call('HDEL', l, 'paused')
    changes[#changes + 1] = {'lane', lane.id, 'paused', paused, ''}
  end
  if lane.paused and lane.paused ~= '' then write('lane', lane.id, l, {paused = lane.paused}) end
  local shut_until, shut_reason = unpack(redis.call('HMGET', l, 'shut_until', 'shut_reason'))
  local refused = shut_reason == 'refused' and tonumber(shut_until) > now
  if lane.again and not refused then   -- what the provider said stands
    redis.call('HDEL', l, 'shut_until', 'shut_reason', 'unreachable', 'unreachable_since', 'trouble', 'trouble_since', 'probes')
  end
  keep_terms(lane.id, org.id)
  redis.call('ZREM', P .. 'due', lane.id)
  wake(lane.id)
end

-- What the flow has let go and nobody has claimed yet would go with the old lane's key. After a restart of the
-- server a ready call may be one that a worker runs: then all of them stay, as those do that are claimed.
local function leave_lane(old_lane)
  if not all_reported() then return end
  local ready = P .. 'ready:' .. (redis.call('HGET', P .. 'l:' .. old_lane, 'pool') or '')
  local ids = redis.call('LRANGE', ready, 0, READY_MOST)
  for i = #ids, 1, -1 do   -- the first comes to the head of the line
    local call = read_call(ids[i])
    if call and carries(call, flow.id) and call.lane == old_lane then
      take_back(call)
    end
  end
end

local function open_flow()
  local f = P .. 'f:' .. flow.id
  local old_lane, old_org, class, user, pack, pack_most, paused =
    unpack(redis.call('HMGET', f, 'lane', 'org', 'class', 'user', 'pack', 'pack_most', 'paused'))
  local whole = flow.attempts
  local new_lane, new_org = whole and lane and lane.id or old_lane, org.id
  local moves = old_lane and (old_lane ~= new_lane or (flow.class and flow.class ~= class) or (flow.user and flow.user ~= user))
  if moves then step_out(old_lane, class, user, flow.id) end
  if old_org and old_org ~= new_org and redis.call('ZREM', P .. 'o:' .. old_org .. ':parked', flow.id) == 1 then
    note_parked(org.id, flow.id)
  end
  redis.call('HSET', f, 'org', new_org, 'lane', new_lane)
  if flow.pack then
    redis.call('HSET', f, 'pack_most', flow.pack, 'pack', pack_most == text(flow.pack) and pack or flow.pack)
  end
  local noted = #changes
  write('flow', flow.id, f, {user = flow.user, class = flow.class, weight = flow.weight, attempts = flow.attempts,
    crashes = flow.crashes, single = flow.single})
  if flow.single then   -- it comes and goes with a user's jobs, and nobody decided anything
    for i = #changes, noted + 1, -1 do changes[i] = nil end
  end
  if common ~= '' then redis.call('HSET', f, 'common', common) end
  redis.call('SADD', P .. 'flows', flow.id)
  if old_lane and old_lane ~= new_lane then leave_lane(old_lane) end
  if flow.paused then
    write('flow', flow.id, f, {paused = true})
    step_out(new_lane, flow.class or class, flow.user or user, flow.id)
    return
  end
  if paused and (whole or flow.paused == false) then
    redis.call('HDEL', f, 'paused')
    changes[#changes + 1] = {'flow', flow.id, 'paused', '1', ''}
  end
  enter(flow.id)
  look_again(flow.id, now)
end

-- What is not told whole is changed: it must be there, and be this org's.
local function is_ours(key) return redis.call('HGET', key, 'org') == org.id end
local lanes, opens_a_lane = told.lanes or {}, false
lanes[#lanes + 1] = lane
local whole_flow = flow and lane and flow.attempts

local function is_whole(lane) return lane.limits and lane.pool end
for _, one in ipairs(lanes) do opens_a_lane = opens_a_lane or is_whole(one) end

local there = redis.call('EXISTS', o) == 1
if org.new and there then return reply('known') end
-- A run that has open jobs, or rows to take, is waited for: it may open its flow again.
local is_awaited = flow and is_ours(P .. 'f:' .. flow.id)
if redis.call('HEXISTS', o, 'purging') == 1 then
  if not is_awaited then return reply('purging') end
  org.status, org.mode, org.weights, org.quota = nil, nil, nil, nil
end
if not there and not (org.quota and opens_a_lane) then return reply('unknown', 'org', org.id) end
for _, one in ipairs(lanes) do
  if not is_whole(one) and not is_ours(P .. 'l:' .. one.id) and not open_again(one.id, org.id) then
    return reply('unknown', 'lane', one.id)
  end
end
if flow and not whole_flow and not is_ours(P .. 'f:' .. flow.id) then return reply('unknown', 'flow', flow.id) end
local version = tonumber(redis.call('HGET', o, 'version')) or 0
if approved then
  local obstacle = cannot_step(org.id, approved.number, 'approve', by, why)
  if obstacle == 'said' then return reply('set', version) end
  if obstacle == 'unknown' then return reply('unknown', 'application', approved.number) end
  if obstacle then return reply('stage', obstacle) end
end

open_org()
for _, one in ipairs(lanes) do open_lane(one) end
if flow then open_flow() end
if approved then
  changes[#changes + 1] = step(org.id, approved.number, 'approve', by, why, approved.checklist)
end
if #changes > 0 then version = audit(org.id, by, why, changes) end
return reply('set', version)
