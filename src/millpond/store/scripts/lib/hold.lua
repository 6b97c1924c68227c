-- hold: a call's place in every limit of its lane, and its share of the quota.

local CROSSINGS = {50, 80, 100}   -- per cent of the quota that are worth telling
local LEDGER_MOST = 100000

local standing = {}

-- Of a flow that has left no counts are kept.
local function stands(flow)
  if standing[flow] == nil then standing[flow] = redis.call('EXISTS', P .. 'f:' .. flow) == 1 end
  return standing[flow]
end

local function tally(flow, field, by)
  if by ~= 0 and stands(flow) then redis.call('HINCRBY', P .. 'f:' .. flow, field, by) end
end

-- A call carries jobs as `job|flow|need`, with commas. One whose jobs were forgotten stands for itself.
local function read_call(id)
  local c = redis.call('HMGET', P .. 'c:' .. id, 'lane', 'org', 'flow', 'jobs', 'need', 'state', 'worker',
    'pool', 'counted', 'tokens', 'inputs', 'bulk', 'cancel')
  if not c[1] or c[2] == '' then return nil end   -- gone, or waiting for its lane
  local jobs = {}
  for one in each(c[4]) do
    local job, flow, need = string.match(one, '^([^|]*)|([^|]*)|(%d+)$')
    jobs[#jobs + 1] = {id = job, flow = flow, need = tonumber(need)}
  end
  local need = tonumber(c[5])
  return {id = id, lane = c[1], org = c[2], flow = c[3], jobs = jobs, need = need, state = c[6],
    units = {inputs = tonumber(c[11]), characters = need, tokens = tonumber(c[10]), bulk = tonumber(c[12])},
    worker = c[7], pool = c[8], counted = c[9], cancelled = c[13]}
end

local function flows_of(call)
  local flows, seen = {call.flow}, {[call.flow] = true}
  for _, job in ipairs(call.jobs) do
    if not seen[job.flow] then flows[#flows + 1] = job.flow end
    seen[job.flow] = true
  end
  return flows
end

local function carries(call, flow)
  for _, one in ipairs(flows_of(call)) do
    if one == flow then return true end
  end
  return false
end

-- What each flow has of a call: `of` says it for a job; of a call without jobs its flow has all.
local function by_flow(call, of, all)
  local sums, names = {}, {}
  for _, job in ipairs(call.jobs) do
    if not sums[job.flow] then
      names[#names + 1] = job.flow
      sums[job.flow] = 0
    end
    sums[job.flow] = sums[job.flow] + of(job)
  end
  if #names == 0 then names, sums = {call.flow}, {[call.flow] = all} end
  return names, sums
end

local function need_of(job) return job.need end

-- Characters of the org (where the lane counts against the quota) and of the flows.
local function count(call, field, sign, of, all)
  local names, sums = by_flow(call, of or need_of, all or call.need)
  local total = 0
  for _, flow in ipairs(names) do
    total = total + sums[flow]
    tally(flow, field, sign * sums[flow])
  end
  if call.counted == '1' and total ~= 0 then redis.call('HINCRBY', P .. 'o:' .. call.org, field, sign * total) end
  return total
end

-- Tells once of each threshold of the quota that is newly passed; who falls below it may pass it again.
local function tell_crossings(org)
  local o = P .. 'o:' .. org
  local quota, used, estimated, crossed = unpack(redis.call('HMGET', o, 'quota', 'used', 'estimated', 'crossed'))
  used, estimated, crossed = tonumber(used) or 0, tonumber(estimated) or 0, tonumber(crossed) or 0
  local reached = 0
  for _, percent in ipairs(CROSSINGS) do
    if quota and quota ~= 'none' and (used + estimated) * 100 >= percent * quota then reached = percent end
  end
  for _, percent in ipairs(CROSSINGS) do
    if percent > crossed and percent <= reached then
      redis.call('XADD', o .. ':ev', 'MAXLEN', '~', EVENTS_MOST, '*', 'at', now, 'event', 'quota',
        'percent', percent, 'used', used, 'estimated', estimated, 'quota', quota)
    end
  end
  if reached ~= crossed then redis.call('HSET', o, 'crossed', reached) end
end

-- A row of the org's ledger, with the sums after it, so that each row can be checked by the one before.
local function enter_ledger(org, outcome, characters, ...)
  local o = P .. 'o:' .. org
  local used, estimated = unpack(redis.call('HMGET', o, 'used', 'estimated'))
  redis.call('XADD', o .. ':led', 'MAXLEN', '~', LEDGER_MOST, '*', 'at', now, 'outcome', outcome, 'characters', characters,
    'used', used or 0, 'estimated', estimated or 0, ...)
  tell_crossings(org)
end

-- A call's row in the books: known, unknown (its reservation stays charged) or unsent. `counted`: the
-- moment of its stamp.
local function book(call, outcome, of, all, counted)
  local names, sums = by_flow(call, of, all)
  local total = 0
  for _, flow in ipairs(names) do
    total = total + sums[flow]
    if stands(flow) and redis.call('HEXISTS', P .. 'f:' .. flow, 'single') == 0 then
      local ids = {}
      for _, job in ipairs(call.jobs) do
        if job.flow == flow then ids[#ids + 1] = job.id end
      end
      redis.call('XADD', P .. 'f:' .. flow .. ':out', '*', 'call', call.id, 'jobs', table.concat(ids, ','),
        'outcome', outcome, 'characters', sums[flow])
    end
  end
  if call.counted == '1' and outcome ~= 'unsent' then
    if outcome == 'unknown' then redis.call('HSET', P .. 'o:' .. call.org .. ':unknown', call.id, total) end
    enter_ledger(call.org, outcome, total, 'call', call.id, 'lane', call.lane, 'counted', counted)
  end
end

-- Of a sent call the hold becomes a stamp, at the latest moment the provider can have counted it.
local function stamp(call, at, units)
  if redis.call('ZREM', P .. 'l:' .. call.lane .. ':flight', call.id) == 1 then in_flight(call.lane, call.units, -1) end
  put_stamp(call.lane, call.id, at, units)
end

-- Calls that a worker has, the last first: where their jobs come back to the head of their lines, those of the
-- first call go first.
local function calls_of(worker)
  local ids = redis.call('SMEMBERS', P .. 'wc:' .. worker)
  table.sort(ids, function(a, b) return tonumber(a, 16) > tonumber(b, 16) end)
  return ids
end

-- A worker's slot is free again.
local function free_slot(call)
  if redis.call('SREM', P .. 'wc:' .. call.worker, call.id) == 1 then
    redis.call('HINCRBY', P .. 'w:' .. call.worker, 'free', 1)
    redis.call('HINCRBY', M, 'free:' .. call.pool, 1)
    slot_frees(call.pool)
  end
end

-- A call that was never sent: no stamp, no charge, its jobs are first in line again; those that are not to
-- be asked any more end.
local function unsend(call)
  if redis.call('ZREM', P .. 'l:' .. call.lane .. ':flight', call.id) == 1 then in_flight(call.lane, call.units, -1) end
  count(call, 'reserved', -1)
  for i = #call.jobs, 1, -1 do
    local job = call.jobs[i]
    if redis.call('HGET', P .. 'j:' .. job.id, 'call') == call.id then
      redis.call('HSET', P .. 'j:' .. job.id, 'state', 'queued')
      redis.call('HDEL', P .. 'j:' .. job.id, 'call')
      local why = overtaken(job.id)
      if why then end_overtaken(job.flow, job.id, why) else to_head(job.flow, job.id) end
    end
  end
  book(call, 'unsent', function() return 0 end, 0)
  if call.state == 'running' then free_slot(call) else slot_frees(call.pool) end
  redis.call('DEL', P .. 'c:' .. call.id)
  -- This hold may be what the lane is blocked by, so a look that was put off is due now.
  redis.call('ZREM', P .. 'due', call.lane)
  wake(call.lane)
  if redis.call('EXISTS', P .. 'o:' .. call.org .. ':parked') == 1 then look_at_parked(call.org) end
end

-- A ready call is taken back before a worker sees it.
local function take_back(call)
  redis.call('LREM', P .. 'ready:' .. call.pool, 0, call.id)
  unsend(call)
end
