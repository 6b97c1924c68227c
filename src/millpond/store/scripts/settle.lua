#!lua flags=allow-oom
-- settle: running -> succeeded | failed | queued (to try again)
--
-- Ends calls that were sent. The hold becomes a stamp and the reservation what was really used,
-- in the same step; of an unknown outcome the whole reservation stays charged. A job is ended, or
-- tried again later, only if it still waits under this call: the call's id is the fence.
--
-- uses base flow window hold
-- ARGV  4 ...   calls, at most 50, each as JSON:
--                 id, lane, flow, need, need_tokens, job_ids (with commas): of the call, should the server have forgotten it
--                 since_ms    from the moment the provider had surely counted it until now; negative: it may
--                             still be counted so long after now
--                 used, tokens   what it used: characters, or null: unknown; tokens, or null: not told
--                 refused     true: the provider said 429
--                 shut_ms     then the lane lets nothing go for so long; 0: the provider did not say
--                 pause       reason for which the lane stands still until it is set again, or ''
--                 told        what the provider says its limits are, for whoever asked, or null
--                 jobs        [{id, end: succeeded | failed | retry, failed: true if it counts as a failure,
--                               delay_ms, body: what its row says}]
--
-- Replies  {'settled', word...}   a word per call: settled, or late (it was ended before; its charge stands)

local SHUT_BLIND_MS = 1000

local function end_job(call, job)
  local j = P .. 'j:' .. job.id
  local of, state = unpack(redis.call('HMGET', j, 'call', 'state'))
  if of ~= call.id then return end
  if state == 'queued' then
    -- The call was lost and the job waits again: an answer is taken all the same, however late.
    if job['end'] == 'retry' then return end
    redis.call('ZREM', P .. 'f:' .. call.flow .. ':later', job.id)
    redis.call('ZREM', P .. 'f:' .. call.flow .. ':parked', job.id)
  else
    redis.call('HINCRBY', j, 'attempts', 1)
  end
  if job['end'] == 'retry' then
    if job.failed then redis.call('HINCRBY', j, 'failures', 1) end
    redis.call('HSET', j, 'state', 'queued')
    redis.call('HDEL', j, 'call')
    redis.call('ZADD', P .. 'f:' .. call.flow .. ':later', now + job.delay_ms, job.id)
    look_again(call.flow, now + job.delay_ms)
  else
    finish(call.flow, job.id, job['end'], job.body)
  end
end

-- Whether calls that end may free something else than a place in a window.
local function frees_more(lane)
  for _, limit in ipairs(limits_of(lane)) do
    if limit[2] == 0 or limit[3] ~= 'calls' then return true end
  end
  return false
end

-- Mean time from release to headers, for forecasts.
local function learn_latency(call, at)
  local released = redis.call('ZSCORE', P .. 'l:' .. call.lane .. ':flight', call.id)
  if not released then return end
  local took, l = math.max(0, at - released), P .. 'l:' .. call.lane
  local mean = tonumber(redis.call('HGET', l, 'latency')) or took
  redis.call('HSET', l, 'latency', math.floor(mean + (took - mean) / 10))
end

-- The provider refused: nothing goes for as long as it said, else until the oldest hold of the
-- shortest window ends, since that is when our books say that there is room again.
local function shut(lane, shut_ms)
  local l = P .. 'l:' .. lane
  local until_ms = now + shut_ms
  if shut_ms == 0 then
    until_ms = now + SHUT_BLIND_MS
    local window = shortest_of(limits_of(lane))
    local oldest = redis.call('ZRANGE', l .. ':s', '(' .. now - window, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
    if oldest then until_ms = math.max(until_ms, oldest + window) end
  end
  use_less(lane)
  if until_ms > tonumber(redis.call('HGET', l, 'shut_until') or 0) then
    redis.call('HSET', l, 'shut_until', until_ms, 'shut_reason', 'refused')
  end
end

-- An id that was given out in an earlier life, after the last moment that the server remembers.
local function forgotten(told)
  local known, base = unpack(redis.call('HMGET', M, 'known', 'base'))
  local n = tonumber(told.id, 16)
  return n > (tonumber(known) or 0) and n <= (tonumber(base) or 0)
end

-- Release, claim and settle of a call were forgotten: it is stamped and charged, once. Its jobs
-- are asked again, since the server knows of no answer.
local function restore(told)
  local l = P .. 'l:' .. told.lane
  local units = {inputs = 1, characters = told.need, tokens = told.need_tokens}
  if not put_stamp(told.lane, told.id, now + 1 - told.since_ms, units) then return end
  local org, counted = unpack(redis.call('HMGET', l, 'org', 'counted'))
  if not org then return end
  local call = {id = told.id, lane = told.lane, org = org, flow = told.flow, counted = counted, jobs = told.job_ids,
    flow_stands = redis.call('EXISTS', P .. 'f:' .. told.flow) == 1}
  local known = told.used ~= cjson.null
  count(call, known and 'used' or 'estimated', known and told.used or told.need)
  tally(call, 'calls', 1)
  book(call, known and 'known' or 'unknown', known and told.used or told.need)
end

local function end_call(told)
  local call = read_call(told.id)
  if not call then
    if forgotten(told) then restore(told) end
    return 'late'
  end
  if call.state == 'ready' then   -- its claim is what such a server has forgotten
    redis.call('LREM', P .. 'ready:' .. call.pool, 0, call.id)
  end
  local known = told.used ~= cjson.null
  local l = P .. 'l:' .. call.lane
  if call.state == 'lost' then
    redis.call('ZREM', P .. 'o:' .. call.org .. ':lost', call.id)
    if known then count(call, 'estimated', -call.need) end
  else
    local at = now + 1 - told.since_ms
    if told.since_ms >= 0 then learn_latency(call, at - 1) end
    stamp(call, at, {inputs = call.units.inputs, characters = known and told.used or call.need,
      tokens = told.tokens ~= cjson.null and told.tokens or call.units.tokens})
    -- It may leave a window before the stamp that the lane waits for does.
    local next_look = frees_more(call.lane) and now or at + shortest_of(limits_of(call.lane))
    redis.call('ZADD', P .. 'due', 'XX', 'LT', next_look, call.lane)
    count(call, 'reserved', -call.need)
    if not known then count(call, 'estimated', call.need) end
    tally(call, 'calls', 1)
    if call.state == 'running' then free_slot(call) end
  end
  if known then count(call, 'used', told.used) end
  if told.refused then tally(call, 'refusals', 1) end
  book(call, known and 'known' or 'unknown', known and told.used or call.need)

  redis.call('HDEL', l, 'unreachable', 'unreachable_since')
  if told.pause ~= '' then redis.call('HSET', l, 'paused', told.pause) end
  if told.refused then shut(call.lane, told.shut_ms) end
  if told.told ~= cjson.null then redis.call('HSET', l, 'told', told.told) end
  for _, job in ipairs(told.jobs) do end_job(call, job) end
  redis.call('DEL', P .. 'c:' .. call.id)
  wake(call.lane)
  if redis.call('EXISTS', P .. 'o:' .. call.org .. ':parked') == 1 then look_at_parked(call.org) end
  return 'settled'
end

local words = {}
for i, one in ipairs(arg) do words[i] = end_call(cjson.decode(one)) end
return reply('settled', unpack(words))
