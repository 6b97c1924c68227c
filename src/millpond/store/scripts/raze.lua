#!lua flags=allow-oom
-- raze: an org is erased, with everything that is kept for it, a part at a time
--
-- Said again it goes on where it was, and once all is gone it tells the same receipt. With the first word the org is
-- suspended. A job that waits ends unasked; a call that a worker makes is unwanted, and waited for until it has ended
-- or was reaped. A flow of a run that has open jobs, or rows that its run has not taken, is left as it is and stops
-- everything after it.
--
-- The receipt, `receipt:{org}`, tells who, when, why and how much of what, and keeps the place while it goes on.
--
-- uses base turn flow window cap hold single audit review
-- ARGV  4 by     who says so; who said it first is kept
--       5 why
--       6 org
--       7 most   of what is looked at or erased, at most 200; 0: the receipt is told, and nothing is done
--
-- Replies  {'told', receipt}         as it is
--          {'razed', receipt}        there is more, say it again
--          {'waits', receipt}        for calls that a worker makes
--          {'busy', receipt, flow}   for a run
--          {'done', receipt}
--          {'unknown'}               no such org, and no receipt

local DAYS_AT_ONCE, APPLICATIONS_MOST = 200, 100

local by, why, org, left = arg[1], arg[2], arg[3], tonumber(arg[4])
local o, receipt = P .. 'o:' .. org, P .. 'receipt:' .. org
local some = false   -- has anything moved?

local function kept(field) return redis.call('HGET', receipt, field) end

-- So many of a kind are gone, and count against what may be done at once.
local function gone(kind, n, cost)
  some, left = true, left - (cost or n)
  if n > 0 then redis.call('HINCRBY', receipt, 'n:' .. kind, n) end
end

-- The first of a sorted set, as many as may still be looked at.
local function first_of(key) return left > 0 and redis.call('ZRANGE', key, 0, left - 1) or {} end

-- ---------------------------------------------------------------- jobs

-- A job that waits leaves unasked. (Its place in line leaves with the flow, or is passed over.)
local function end_unasked(job, flow, tag)
  leave_queue(org, flow, job)
  redis.call('ZREM', P .. 'until', job)
  if redis.call('EXISTS', P .. 'f:' .. flow) == 1 then redis.call('HINCRBY', P .. 'f:' .. flow, 'open', -1) end
  if tag then redis.call('HINCRBY', P .. 'counts', 'cancelled|' .. string.match(tag, '^[^|]*'), 1) end
  erase(job, org, flow)
  redis.call('XADD', P .. 'done', 'MAXLEN', '~', DONE_MOST, '*', 'job', job)
end

-- Nobody wants a single job of this org any more, and nothing of it is to be kept once it has ended.
local function mark(job)
  local j = P .. 'j:' .. job
  if redis.call('HGET', j, 'org') ~= org then return end
  redis.call('HSET', j, 'cancel', 1, 'erase', 1)
  if redis.call('HSETNX', j, 'razed', 1) == 1 then gone('jobs', 1) end
end

-- A call is taken back if no worker has seen it, else cut if nobody wants anything of it. True: it is gone.
local function stop(call)
  for _, job in ipairs(call.jobs) do mark(job.id) end
  if call.state == 'ready' and all_reported() then
    take_back(call)
    for _, flow in ipairs(flows_of(call)) do
      if redis.call('HEXISTS', P .. 'f:' .. flow, 'single') == 1 then close(flow) end
    end
    return true
  end
  for _, job in ipairs(call.jobs) do
    if redis.call('HEXISTS', P .. 'j:' .. job.id, 'cancel') == 0 then return false end
  end
  redis.call('HSET', P .. 'c:' .. call.id, 'cancel', 1)
  return false
end

-- True: nothing of the job is left.
local function raze_job(job)
  local of, flow, state, id, ended, tag =
    unpack(redis.call('HMGET', P .. 'j:' .. job, 'org', 'flow', 'state', 'call', 'ended', 'tag'))
  if of ~= org then   -- it went with another one of its call
    redis.call('ZREM', o .. INDEX, job)
    left = left - 1
    return true
  end
  local call = (state == 'released' or state == 'running') and read_call(id)
  if call then
    left = left - 1
    return stop(call)
  end
  if redis.call('EXISTS', P .. 'x:' .. job) == 1 then gone('dead_letters', 1) end
  if ended then erase(job, org, flow) else end_unasked(job, flow, tag) end
  close(flow)
  gone('jobs', 1)
  return true
end

local function raze_jobs()
  local behind = 0   -- of jobs that run
  while left > 0 do
    local jobs = redis.call('ZRANGE', o .. INDEX, behind, behind + left - 1)
    if #jobs == 0 then return end
    for _, job in ipairs(jobs) do
      if left <= 0 then return end
      if not raze_job(job) then behind = behind + 1 end
    end
  end
end

local function raze_letters()
  for _, job in ipairs(first_of(o .. ':dead')) do
    redis.call('DEL', P .. 'x:' .. job)
    redis.call('ZREM', o .. ':dead', job)
    gone('dead_letters', 1)
  end
end

local function raze_lost_calls()
  for _, id in ipairs(first_of(o .. ':lost')) do
    local call = read_call(id)
    for _, job in ipairs(call and call.jobs or {}) do redis.call('UNLINK', P .. 'r:' .. id .. ':' .. job.id) end
    redis.call('DEL', P .. 'c:' .. id)
    redis.call('ZREM', o .. ':lost', id)
    gone('lost_calls', 1)
  end
end

-- ---------------------------------------------------------------- flows and lanes

local function is_busy(flow)
  local single, open = unpack(redis.call('HMGET', P .. 'f:' .. flow, 'single', 'open'))
  return not single and ((tonumber(open) or 0) > 0 or redis.call('XLEN', P .. 'f:' .. flow .. ':out') > 0)
end

-- Goes through the flows of all orgs from where it was, and does something with each of this one. The first of them
-- that is busy; `place` says 'all' once there is no more.
local function go_through_flows(place, act)
  while left > 0 and kept(place) ~= 'all' do
    local next, flows = unpack(redis.call('SSCAN', P .. 'flows', kept(place) or '0', 'COUNT', left))
    for _, flow in ipairs(flows) do
      if redis.call('HGET', P .. 'f:' .. flow, 'org') == org then
        if is_busy(flow) then return flow end
        act(flow)
      end
    end
    some, left = true, left - math.max(1, #flows)
    redis.call('HSET', receipt, place, next == '0' and 'all' or next)
  end
end

local function raze_level(level) redis.call('UNLINK', level, level .. ':idle') end

local function raze_flow(flow)
  local f = P .. 'f:' .. flow
  local lane, class, user = unpack(redis.call('HMGET', f, 'lane', 'class', 'user'))
  if lane then raze_level(flows_level(lane, class, user)) end
  redis.call('SREM', P .. 'flows', flow)
  redis.call('ZREM', P .. 'soon', flow)
  redis.call('DEL', f, f .. ':q', f .. ':later', f .. ':parked', f .. ':out')
  gone('flows', 1, 0)
end

-- Who takes turns in a class of a lane. A flow that is busy; `left` may be over before all are gone.
local function raze_turns(lane, class)
  local users = users_level(lane, class)
  for _, user in ipairs(first_of(users)) do
    local level = flows_level(lane, class, user)
    for _, flow in ipairs(first_of(level)) do
      if is_busy(flow) then return flow end
      redis.call('ZREM', level, flow)
      gone('turns', 0, 1)
    end
    if left <= 0 then return end
    raze_level(level)
    redis.call('ZREM', users, user)
    gone('turns', 0, 1)
  end
  if left > 0 then raze_level(users) end
end

local function raze_lane(lane)
  local l = P .. 'l:' .. lane
  for class in pairs(CLASS_WEIGHT) do
    local flow = raze_turns(lane, class)
    if flow or left <= 0 then return flow end
  end
  for _, user in ipairs(redis.call('SRANDMEMBER', user_windows(lane), left)) do
    forget_user(lane, user)
    gone('turns', 0, 1)
  end
  if left <= 0 then return end
  for _, limit in ipairs(limits_of(lane)) do redis.call('UNLINK', ring(lane, limit).key) end
  raze_level(classes_level(lane))
  for _, set in ipairs({'turn', 'due', 'idle', 'capped', 'full:' .. (redis.call('HGET', l, 'pool') or '')}) do
    redis.call('ZREM', P .. set, lane)
  end
  redis.call('UNLINK', l, l .. ':flight', l .. ':s', l .. ':answers', l .. ':capped', l .. ':capped:old')
  redis.call('SREM', o .. ':lanes', lane)
  redis.call('HDEL', receipt, 'at:swept')
  gone('lanes', 1)
end

-- A flow that is busy, and whether calls are in flight.
local function raze_lanes()
  local flying = false
  for _, lane in ipairs(left > 0 and redis.call('SRANDMEMBER', o .. ':lanes', left) or {}) do
    if left <= 0 then return end
    if redis.call('EXISTS', P .. 'l:' .. lane .. ':flight') == 1 then
      flying = true
    else
      local flow = raze_lane(lane)
      if flow then return flow end
    end
  end
  return nil, flying
end

-- ---------------------------------------------------------------- who and what else

local function raze_users()
  for _, user in ipairs(first_of(o .. ':users')) do
    if left <= 0 then return end
    local u = o .. ':u:' .. user
    local keys = redis.call('ZRANGE', u .. ':keys', 0, -1)   -- as many as `mint` allows
    for _, key in ipairs(keys) do redis.call('DEL', P .. 'k:' .. key) end
    redis.call('DEL', u, u .. ':keys')
    redis.call('ZREM', o .. ':users', user)
    gone('api_keys', #keys)
    gone('users', 1)
  end
end

local function raze_applications()
  local last = tonumber(redis.call('HGET', o, 'application')) or 0
  for number = math.max(1, last - APPLICATIONS_MOST), last do
    local a = application(org, number)
    local at = left > 0 and redis.call('HGET', a, 'at')
    if at then
      for _, stage in ipairs({'open', 'asked'}) do redis.call('ZREM', desk(stage), place(org, number, at)) end
      redis.call('DEL', a, a .. ':talk')
      gone('applications', 1)
    end
  end
end

-- Of each day since the org was created; since ever, if nobody knows when that was.
local function raze_usage()
  local today = math.floor(now / DAY_MS)
  local day = tonumber(kept('at:day')) or math.floor((tonumber(redis.call('HGET', o, 'created')) or 0) / DAY_MS)
  while left > 0 and day <= today do
    local days, last = {}, math.min(today, day + math.min(left, DAYS_AT_ONCE) - 1)
    for one = day, last do days[#days + 1] = o .. ':use:' .. one end
    gone('days_of_usage', redis.call('UNLINK', unpack(days)), #days)
    day = last + 1
    redis.call('HSET', receipt, 'at:day', day)
  end
  return day > today
end

local function raze_models()
  for _, model in ipairs(left > 0 and redis.call('HRANDFIELD', o .. ':models', left) or {}) do
    if redis.call('HGET', P .. 'models', model) == org then redis.call('HDEL', P .. 'models', model) end
    redis.call('HDEL', o .. ':models', model)
    gone('models', 1)
  end
end

local function raze_provider_key()
  local master, fingerprint = unpack(redis.call('HMGET', o .. ':key', 'master', 'mark'))
  if master then
    redis.call('HDEL', P .. 'marks', master .. ':' .. fingerprint)
    if redis.call('HINCRBY', P .. 'masters', master, -1) <= 0 then redis.call('HDEL', P .. 'masters', master) end
    gone('provider_keys', 1)
  end
  redis.call('DEL', o .. ':key')
end

-- The org's record goes, and the receipt stays.
local function end_it()
  for stream, kind in pairs({led = 'ledger_rows', audit = 'audit_rows', ev = 'events'}) do
    gone(kind, redis.call('XLEN', o .. ':' .. stream), 0)
  end
  for _, field in ipairs({'bytes', 'kept'}) do
    local bytes = tonumber(redis.call('HGET', o, field)) or 0
    if bytes ~= 0 then redis.call('HINCRBY', M, field, -bytes) end
  end
  for _, of in ipairs({'weights', 'lanes', 'lost', 'unknown', 'parked', 'dead', 'led', 'audit', 'ev', 'users', 'admins',
    'models', 'jobs', 'terms'}) do
    redis.call('UNLINK', o .. ':' .. of)
  end
  redis.call('SREM', P .. 'orgs', org)
  redis.call('ZREM', P .. 'orgs:sorted', org)
  redis.call('DEL', o)
  redis.call('HDEL', receipt, 'at:looked', 'at:swept', 'at:day')
  redis.call('HSET', receipt, 'ended', now)
  local changes, told = {{'org', org, 'purge', 'begun', 'ended'}}, redis.call('HGETALL', receipt)
  for i = 1, #told, 2 do
    local kind = string.match(told[i], '^n:(.*)')
    if kind then changes[#changes + 1] = {'erased', org, kind, told[i + 1], ''} end
  end
  audit('', kept('by'), kept('why'), changes)
end

-- ---------------------------------------------------------------- one step

local there, known = redis.call('EXISTS', o) == 1, kept('begun')
if not known and (not there or left == 0) then return reply('unknown') end
if left == 0 then return reply('told', redis.call('HGETALL', receipt)) end
if not there and kept('ended') then return reply('done', redis.call('HGETALL', receipt)) end

if not known or kept('ended') then   -- (an org may have had its id before)
  redis.call('DEL', receipt)
  redis.call('HSET', receipt, 'org', org, 'name', redis.call('HGET', o, 'name') or '', 'by', by, 'why', why, 'begun', now)
  audit('', by, why, {{'org', org, 'purge', '', 'begun'}})
end
if there then redis.call('HSET', o, 'status', 'suspended', 'purging', 1) end

-- Whether it is over for now; `busy`: with which flow.
local function step_on()
  local busy = go_through_flows('at:looked', function() end)
  if busy then return busy end
  raze_jobs()
  raze_letters()
  raze_lost_calls()
  if left <= 0 or redis.call('EXISTS', o .. INDEX) == 1 then return end
  local flying
  busy, flying = raze_lanes()
  if busy or flying or left <= 0 or redis.call('EXISTS', o .. ':lanes') == 1 then return busy end
  busy = go_through_flows('at:swept', raze_flow)
  if busy or left <= 0 or kept('at:swept') ~= 'all' then return busy end
  raze_users()
  raze_applications()
  if not raze_usage() then return end
  raze_models()
  if left <= 0 then return end
  raze_provider_key()
  end_it()
end

local busy = step_on()
local told = redis.call('HGETALL', receipt)
if busy then return reply('busy', told, busy) end
if kept('ended') then return reply('done', told) end
if not some then return reply('waits', told) end
return reply('razed', told)
