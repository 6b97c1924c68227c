#!lua flags=allow-oom
-- settle: running -> succeeded | failed | queued (to try again)
--
-- Ends calls that were sent. The hold becomes a stamp and the reservation what was really used,
-- in the same step; of an unknown outcome the whole reservation stays charged. A job is ended, or
-- tried again later, only if it still waits under this call: the call's id is the fence.
--
-- uses base flow hold
-- ARGV  4 ...   calls, at most 50, each as JSON:
--                 id, lane
--                 since_ms    from the moment the provider had surely counted it until now; negative: it may
--                             still be counted so long after now
--                 used        characters, or null: unknown
--                 refused     true: the provider said 429
--                 shut_ms     then the lane lets nothing go for so long; 0: the provider did not say
--                 pause       reason for which the lane stands still until it is set again, or ''
--                 jobs        [{id, end: succeeded | failed | retry, failed: true if it counts as a failure,
--                               delay_ms, body: what its row says}]
--
-- Replies  {'settled', word...}   a word per call: settled, or late (it was ended before; its charge stands)

local SHUT_BLIND_MS = 1000

local function end_job(call, job)
  local j = P .. 'j:' .. job.id
  if redis.call('HGET', j, 'call') ~= call.id then return end
  redis.call('HINCRBY', j, 'attempts', 1)
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

-- The provider refused: nothing goes for as long as it said, else until the oldest hold of the
-- shortest window ends, since that is when our books say that there is room again.
local function shut(l, shut_ms)
  local until_ms = now + shut_ms
  if shut_ms == 0 then
    until_ms = now + SHUT_BLIND_MS
    local window = math.huge
    for _, limit in ipairs(cjson.decode(redis.call('HGET', l, 'limits'))) do window = math.min(window, limit[2]) end
    local oldest = redis.call('ZRANGE', l .. ':s', '(' .. now - window, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
    if oldest then until_ms = math.max(until_ms, oldest + window) end
  end
  if until_ms > tonumber(redis.call('HGET', l, 'shut_until') or 0) then
    redis.call('HSET', l, 'shut_until', until_ms, 'shut_reason', 'refused')
  end
end

local function end_call(told)
  local call = read_call(told.id)
  if not call or call.state == 'ready' then return 'late' end
  local known = told.used ~= cjson.null
  if call.state == 'lost' then
    redis.call('ZREM', P .. 'o:' .. call.org .. ':lost', call.id)
    if known then count(call, 'estimated', -call.need) end
  else
    stamp(call, now + 1 - told.since_ms)
    count(call, 'reserved', -call.need)
    if not known then count(call, 'estimated', call.need) end
    redis.call('HINCRBY', P .. 'f:' .. call.flow, 'calls', 1)
    free_slot(call)
  end
  if known then count(call, 'used', told.used) end
  if told.refused then redis.call('HINCRBY', P .. 'f:' .. call.flow, 'refusals', 1) end
  book(call.flow, call.id, call.jobs, known and 'known' or 'unknown', known and told.used or call.need)

  local l = P .. 'l:' .. call.lane
  redis.call('HDEL', l, 'unreachable', 'unreachable_since')
  if told.pause ~= '' then redis.call('HSET', l, 'paused', told.pause) end
  if told.refused then shut(l, told.shut_ms) end
  for _, job in ipairs(told.jobs) do end_job(call, job) end
  redis.call('DEL', P .. 'c:' .. call.id)
  wake(call.lane)
  if redis.call('EXISTS', P .. 'o:' .. call.org .. ':parked') == 1 then look_at_parked(call.org) end
  return 'settled'
end

local words = {}
for i, one in ipairs(arg) do words[i] = end_call(cjson.decode(one)) end
return reply('settled', unpack(words))
