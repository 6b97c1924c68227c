-- hold: a call's place in every limit of its lane, and its share of the quota.

-- Counts of the call's flow; of a flow that has left none are kept.
local function tally(call, field, by)
  if call.flow_stands then redis.call('HINCRBY', P .. 'f:' .. call.flow, field, by) end
end

-- Characters of the org (where the lane counts against the quota) and of the flow.
local function count(call, field, by)
  if by == 0 then return end
  if call.counted == '1' then redis.call('HINCRBY', P .. 'o:' .. call.org, field, by) end
  tally(call, field, by)
end

-- A call's row in the books: known, unknown (its reservation stays charged) or unsent.
local function book(call, outcome, characters)
  if not call.flow_stands then return end
  redis.call('XADD', P .. 'f:' .. call.flow .. ':out', '*', 'call', call.id, 'jobs', call.jobs,
    'outcome', outcome, 'characters', characters)
end

local function read_call(id)
  local c = redis.call('HMGET', P .. 'c:' .. id, 'lane', 'org', 'flow', 'jobs', 'need', 'state', 'worker',
    'pool', 'counted', 'tokens')
  if not c[1] then return nil end
  local need, inputs = tonumber(c[5]), math.max(1, (select(2, string.gsub(c[4], '[^,]+', ''))))
  return {id = id, lane = c[1], org = c[2], flow = c[3], jobs = c[4], need = need, state = c[6],
    units = {inputs = inputs, characters = need, tokens = tonumber(c[10])},
    worker = c[7], pool = c[8], counted = c[9], flow_stands = redis.call('EXISTS', P .. 'f:' .. c[3]) == 1}
end

-- Of a sent call the hold becomes a stamp, at the latest moment the provider can have counted it.
local function stamp(call, at, units)
  if redis.call('ZREM', P .. 'l:' .. call.lane .. ':flight', call.id) == 1 then
    in_flight(call, -1)
    put_stamp(call.lane, call.id, at, units)
  end
end

-- A worker's slot is free again.
local function free_slot(call)
  if redis.call('SREM', P .. 'wc:' .. call.worker, call.id) == 1 then
    redis.call('HINCRBY', P .. 'w:' .. call.worker, 'free', 1)
    redis.call('HINCRBY', M, 'free:' .. call.pool, 1)
  end
end

-- A call that was never sent: no stamp, no charge, its jobs are first in line again.
local function unsend(call)
  redis.call('ZREM', P .. 'l:' .. call.lane .. ':flight', call.id)
  in_flight(call, -1)
  count(call, 'reserved', -call.need)
  for job in each(call.jobs) do
    if redis.call('HGET', P .. 'j:' .. job, 'call') == call.id then
      redis.call('HSET', P .. 'j:' .. job, 'state', 'queued')
      redis.call('HDEL', P .. 'j:' .. job, 'call')
      to_head(call.flow, job)
    end
  end
  book(call, 'unsent', 0)
  if call.state == 'running' then free_slot(call) end
  redis.call('DEL', P .. 'c:' .. call.id)
  -- This hold may be what the lane is blocked by, so a look that was put off is due now.
  redis.call('ZREM', P .. 'due', call.lane)
  wake(call.lane)
  if redis.call('EXISTS', P .. 'o:' .. call.org .. ':parked') == 1 then look_at_parked(call.org) end
end
