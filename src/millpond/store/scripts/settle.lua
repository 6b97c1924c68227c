#!lua flags=allow-oom
-- settle: running -> succeeded | failed | queued (to try again) | cancelled | expired
--
-- Ends calls that were sent. The hold becomes a stamp and the reservation what was really used,
-- in the same step; of an unknown outcome the whole reservation stays charged. A job is ended, or
-- tried again later, only if it still waits under this call: the call's id is the fence.
--
-- uses base turn flow window hold
-- ARGV  4 ...   calls, together at most 200 jobs, each as JSON:
--                 id, lane, flow, need, need_tokens, inputs, bulk, job_ids (with commas): of the call,
--                             should the server have forgotten it
--                 since_ms    from the moment the provider had surely counted it until now; negative: it may
--                             still be counted so long after now
--                 credit_ms   the provider says that it had it for so long before that
--                 used, tokens   what it used: characters, or null: unknown; tokens, or null: not told
--                 refused     true: the provider said 429
--                 shut_ms     then the lane lets nothing go for so long; 0: the provider did not say
--                 trouble     true: the provider is unwell or does not answer
--                 cut         true: we gave it up ourselves, which tells nothing of the provider
--                 split       true: it does not take so many jobs at once
--                 pause       reason for which the lane stands still until it is set again, or ''
--                 told, said  what the provider says its limits are, for whoever asked, or null; and all it
--                             says of them, for people
--                 jobs        [{id, end: succeeded | failed | retry, failed: true if it counts as a failure,
--                               unknown: true if nobody knows whether it was answered,
--                               delay_ms, used: characters, or null: unknown, body: what its row says, or an error;
--                               null: it was sent ahead, as r:{call}:{job}}]
--
-- Replies  {'settled', word...}   a word per call: settled, or late (it was ended before; its charge stands)

local SHUT_BLIND_MS = 1000
local TROUBLE_SHUT_MS, TROUBLE_SHUT_MOST_MS = 1000, 60000
local CREDIT_OFF_MS = 3600000
local ANSWERS_MOST, P99_EVERY = 500, 20
local BOUND_MARGIN = 1.2
local LATENCIES_MOST = 100
local TRY_LARGER_EVERY = 64   -- packs that were taken

-- What an answer came to of what was kept free for it: for reservations to come.
local function learn_answer(call, entry, used)
  local most, base = string.match(entry, '^(%d+)|[^|]+|%d+|(%d+)|')
  most, base = tonumber(most), tonumber(base)
  if call.counted ~= '1' or most <= base then return end
  local l, part = P .. 'l:' .. call.lane, math.max(0, used - base) / (most - base)
  if part > 1 then
    redis.call('HINCRBY', l, 'over', used - most)
    local bound = tonumber(redis.call('HGET', l, 'bound')) or 1
    if part * BOUND_MARGIN > bound then redis.call('HSET', l, 'bound', part * BOUND_MARGIN) end
  end
  if redis.call('HGET', P .. 'o:' .. call.org, 'reserve') ~= 'p99' then return end
  local answers = redis.call('HINCRBY', l, 'answers', 1)
  redis.call('LPUSH', l .. ':answers', string.format('%.6f', part))
  redis.call('LTRIM', l .. ':answers', 0, ANSWERS_MOST - 1)
  if answers % P99_EVERY == 0 then
    local seen = redis.call('LRANGE', l .. ':answers', 0, -1)
    for i, one in ipairs(seen) do seen[i] = tonumber(one) end
    table.sort(seen)
    redis.call('HSET', l, 'p99', seen[math.ceil(#seen * 0.99)])
  end
end

-- While the provider is unwell nothing that fails is held against a job.
local function unwell(lane) return (tonumber(redis.call('HGET', P .. 'l:' .. lane, 'trouble')) or 0) >= TROUBLE_MOST end

local function end_job(call, job, flow, refused)
  local j = P .. 'j:' .. job.id
  local of, state, entry, org, tag = unpack(redis.call('HMGET', j, 'call', 'state', 'entry', 'org', 'tag'))
  if of ~= call.id then return end
  if org and tag and job.used ~= cjson.null and job.used > 0 then note_usage(org, tag, 'characters', job.used) end
  local how = job['end']
  if job.body == cjson.null then
    job.body = redis.call('GET', P .. 'r:' .. call.id .. ':' .. job.id)
    if not job.body then how, job.body = 'retry', '' end
  end
  if how == 'failed' and job.failed and unwell(call.lane) then how = 'retry' end
  if state == 'queued' then
    -- The call was lost and the job waits again: an answer is taken all the same, however late.
    if how == 'retry' then return end
    leave_queue(call.org, flow, job.id)
    redis.call('ZREM', P .. 'due', call.lane)   -- it may be what the lane waits for
  else
    redis.call('HINCRBY', j, 'attempts', 1)
  end
  if refused then redis.call('HINCRBY', j, 'refused', 1) end
  if job.failed then remember_error(job.id, job.body) end
  local why = how == 'retry' and overtaken(job.id)
  if why then
    end_overtaken(flow, job.id, why)
  elseif how == 'retry' and job.unknown and redis.call('HGET', j, 'on_unknown') == 'end' then
    end_unknown(flow, job.id)
  elseif how == 'retry' then
    if job.failed and not unwell(call.lane) then redis.call('HINCRBY', j, 'failures', 1) end
    redis.call('HSET', j, 'state', 'queued')
    redis.call('HDEL', j, 'call')
    redis.call('ZADD', P .. 'f:' .. flow .. ':later', now + job.delay_ms, job.id)
    look_again(flow, now + job.delay_ms)
  else
    if how == 'succeeded' and job.used ~= cjson.null then learn_answer(call, entry, job.used) end
    finish(flow, job.id, how, job.body)
  end
end

-- Whether calls that end may free something else than a place in a window of calls.
local function frees_more(lane)
  for _, limit in ipairs(limits_of(lane)) do
    if limit[2] == 0 or (limit[3] ~= 'calls' and limit[3] ~= 'bulk') then return true end
  end
  return false
end

-- Mean time from release to headers, for forecasts and for the pace of bulk: of about the last hundred
-- calls, since those of a burst end in the order of how long they took.
local function learn_latency(call, took)
  local l = P .. 'l:' .. call.lane
  local mean = tonumber(redis.call('HGET', l, 'latency')) or took
  local n = math.min(LATENCIES_MOST, redis.call('HINCRBY', l, 'latencies', 1))
  redis.call('HSET', l, 'latency', mean + (took - mean) / n)
end

local function use_less(lane)
  local window, amount = shortest_of(limits_of(lane))
  if window == 0 then return end
  redis.call('HSET', P .. 'l:' .. lane, 'share_at', now,
    'share', math.max(SHARE_LEAST, share_of(lane, window) * (1 - 1 / amount)))
end

-- The provider refused: nothing goes for as long as it said, else until the oldest hold of the
-- shortest window ends, since that is when our books say that there is room again. Its service time
-- is not believed for a while: if it is what misled us, the strict rule stands underneath.
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
  redis.call('HSET', l, 'credit_off_until', now + CREDIT_OFF_MS)
  redis.call('HINCRBY', l, 'refusals', 1)
  if until_ms > tonumber(redis.call('HGET', l, 'shut_until') or 0) then
    redis.call('HSET', l, 'shut_until', until_ms, 'shut_reason', 'refused')
  end
end

-- The lane's breaker. It opens when many jobs in a row failed at their first try, then lets one call
-- through now and then, until one is answered.
local function watch_for_trouble(call, told)
  local l = P .. 'l:' .. call.lane
  if not told.trouble then
    if not told.refused and told.pause == '' then redis.call('HDEL', l, 'trouble', 'trouble_since', 'probes') end
    return
  end
  local troubled = tonumber(redis.call('HGET', l, 'trouble')) or 0
  local first = call.jobs[1] and (redis.call('HGET', P .. 'j:' .. call.jobs[1].id, 'failures') or '0') == '0'
  if troubled < TROUBLE_MOST and not first then return end
  troubled = redis.call('HINCRBY', l, 'trouble', 1)
  if troubled >= TROUBLE_MOST and tonumber(redis.call('HGET', l, 'shut_until') or 0) <= now then
    local probes = redis.call('HINCRBY', l, 'probes', 1)
    redis.call('HSETNX', l, 'trouble_since', now)
    redis.call('HSET', l, 'shut_until', now + math.min(TROUBLE_SHUT_MOST_MS, TROUBLE_SHUT_MS * 2 ^ (probes - 1)),
      'shut_reason', 'unwell')
  end
end

-- Packs of a flow become smaller when one is refused for its size, and grow back as they are taken. The
-- size that failed is tried again only now and then.
local function resize_packs(call, told)
  if #call.jobs < 2 or not stands(call.flow) then return end
  local f = P .. 'f:' .. call.flow
  local pack, pack_most, too_large = unpack(redis.call('HMGET', f, 'pack', 'pack_most', 'pack_fails'))
  pack, pack_most, too_large = tonumber(pack), tonumber(pack_most), tonumber(too_large) or math.huge
  if told.split then
    redis.call('HSET', f, 'pack', math.max(1, math.min(pack, math.floor(#call.jobs / 2))), 'pack_fails', #call.jobs, 'pack_good', 0)
  elseif pack < pack_most then
    if redis.call('HINCRBY', f, 'pack_good', 1) % TRY_LARGER_EVERY == 0 then
      too_large = math.huge
      redis.call('HDEL', f, 'pack_fails')
    end
    redis.call('HSET', f, 'pack', math.max(pack, math.min(pack_most, pack + math.ceil(pack / 8), too_large - 1)))
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
  local units = {inputs = told.inputs, characters = told.need, tokens = told.need_tokens, bulk = told.bulk}
  local org, counted = unpack(redis.call('HMGET', l, 'org', 'counted'))
  if not org or not put_stamp(told.lane, told.id, now + 1 - told.since_ms, units) then return end
  local jobs = {}
  for id in each(told.job_ids) do jobs[#jobs + 1] = {id = id, flow = told.flow, need = 0} end
  local call = {id = told.id, lane = told.lane, org = org, flow = told.flow, counted = counted, jobs = {}}
  local known = told.used ~= cjson.null
  local charged = known and told.used or told.need
  count(call, known and 'used' or 'estimated', 1, nil, charged)
  tally(call.flow, 'calls', 1)
  -- Of its jobs only their names are known: the first stands for all of the charge.
  call.jobs = jobs
  local first = true
  book(call, known and 'known' or 'unknown', function()
    local share = first and charged or 0
    first = false
    return share
  end, charged, now + 1 - told.since_ms)
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
  local used, ends = {}, {}
  for _, job in ipairs(told.jobs) do
    used[job.id] = job.used ~= cjson.null and job.used or nil
    ends[job.id] = job
  end
  local function used_of(job) return used[job.id] or job.need end
  local l, at = P .. 'l:' .. call.lane, now
  if call.state == 'lost' then
    redis.call('ZREM', P .. 'o:' .. call.org .. ':lost', call.id)
    if known and redis.call('HDEL', P .. 'o:' .. call.org .. ':unknown', call.id) == 0 then
      call.counted = '0'   -- the org's books were put right by hand meanwhile
    end
    if known then count(call, 'estimated', -1) end
  else
    local credit, off_until = unpack(redis.call('HMGET', l, 'credit', 'credit_off_until'))
    at = now + 1 - told.since_ms
    local released = tonumber(redis.call('ZSCORE', l .. ':flight', call.id))
    if released then
      if told.since_ms >= 0 then learn_latency(call, math.max(0, at - 1 - released)) end
      if credit == '1' and (tonumber(off_until) or 0) <= now then at = math.min(at, math.max(released, at - told.credit_ms)) end
    end
    stamp(call, at, {inputs = call.units.inputs, characters = known and told.used or call.need, bulk = call.units.bulk,
      tokens = told.tokens ~= cjson.null and told.tokens or call.units.tokens})
    -- It may leave a window before the stamp that the lane waits for does.
    local next_look = frees_more(call.lane) and now or at + shortest_of(limits_of(call.lane))
    redis.call('ZADD', P .. 'due', 'XX', 'LT', next_look, call.lane)
    count(call, 'reserved', -1)
    if not known then count(call, 'estimated', 1) end
    tally(call.flow, 'calls', 1)
    if call.state == 'running' then free_slot(call) else slot_frees(call.pool) end
  end
  if known then count(call, 'used', 1, used_of, told.used) end
  if told.refused then tally(call.flow, 'refusals', 1) end
  if known or call.state ~= 'lost' then   -- that a lost one is unknown was booked when it was lost
    book(call, known and 'known' or 'unknown', known and used_of or need_of, known and told.used or call.need, at)
  end

  if not told.cut then redis.call('HDEL', l, 'unreachable', 'unreachable_since') end
  if told.pause ~= '' then redis.call('HSET', l, 'paused', told.pause) end
  if told.refused then shut(call.lane, told.shut_ms) end
  if told.told ~= cjson.null then redis.call('HSET', l, 'told', told.told) end
  if told.said ~= cjson.null then redis.call('HSET', l, 'said', told.said, 'said_at', now) end
  if not told.cut then watch_for_trouble(call, told) end
  if not told.cut and not told.trouble and not told.refused then resize_packs(call, told) end
  for _, job in ipairs(call.jobs) do
    if ends[job.id] then end_job(call, ends[job.id], job.flow, told.refused) end
  end
  redis.call('DEL', P .. 'c:' .. call.id)
  wake(call.lane)
  if redis.call('EXISTS', P .. 'o:' .. call.org .. ':parked') == 1 then look_at_parked(call.org) end
  return 'settled'
end

local words = {}
for i, one in ipairs(arg) do
  local told, ahead = cjson.decode(one), {}
  for _, job in ipairs(told.jobs) do
    if job.body == cjson.null then ahead[#ahead + 1] = P .. 'r:' .. told.id .. ':' .. job.id end
  end
  words[i] = end_call(told)
  if #ahead > 0 then redis.call('UNLINK', unpack(ahead)) end
end
return reply('settled', unpack(words))
