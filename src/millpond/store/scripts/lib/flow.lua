-- flow: putting a job in line, and telling what became of it.
--
-- A queued job stands in its flow's line as `need|job|tokens|base|pack`: characters and tokens that it
-- may use at most, the characters that are known beforehand, and what jobs of one call have in common.

-- The flow takes turns again; a paused one does not.
local function enter(flow)
  local lane, class, user, paused = unpack(redis.call('HMGET', P .. 'f:' .. flow, 'lane', 'class', 'user', 'paused'))
  if not lane or paused then return end
  if not redis.call('ZSCORE', flows_level(lane, class, user), flow) then step_in(lane, class, user, flow) end
  if class == 'i' then redis.call('ZREM', P .. 'due', lane) end   -- it may go where bulk has to wait
  wake(lane)
end

-- A queued job goes to the head of its flow: it has waited before.
local function to_head(flow, job)
  local entry = redis.call('HGET', P .. 'j:' .. job, 'entry')
  if not entry then return end
  redis.call('LPUSH', P .. 'f:' .. flow .. ':q', entry)
  enter(flow)
end

-- Characters of the quota that are neither used nor spoken for.
local function left_of(quota, used, reserved, estimated)
  if not quota or quota == 'none' then return math.huge end
  return quota - (tonumber(used) or 0) - (tonumber(reserved) or 0) - (tonumber(estimated) or 0)
end

local function quota_left(org)
  return left_of(unpack(redis.call('HMGET', P .. 'o:' .. org, 'quota', 'used', 'reserved', 'estimated')))
end

local LOOKED_AT = 50   -- flows with parked jobs at once
local P99_FROM = 20   -- answers that have been seen before the p99 of their sizes is believed

-- How much of a job's bound is reserved: all of it, more where answers went over it, or what 99 of 100
-- answers have come to.
local function scale_of(reserve, bound, p99, answers)
  if reserve == 'p99' and (tonumber(answers) or 0) >= P99_FROM then return tonumber(p99) end
  return tonumber(bound) or 1
end

local function scaled(scale, most, base)
  return scale == 1 and most or base + math.ceil((most - base) * scale)
end

-- The org's quota may have room again: flows whose least parked job may fit now are looked at.
local function look_at_parked(org)
  local left, reserve = quota_left(org), redis.call('HGET', P .. 'o:' .. org, 'reserve')
  local fits = (left == math.huge or reserve == 'p99') and '+inf' or left
  for _, flow in ipairs(redis.call('ZRANGE', P .. 'o:' .. org .. ':parked', '-inf', fits, 'BYSCORE', 'LIMIT', 0, LOOKED_AT)) do
    look_again(flow, now)
  end
end

-- The org knows of each flow with parked jobs what the least of them needs.
local function note_parked(org, flow)
  local least = redis.call('ZRANGE', P .. 'f:' .. flow .. ':parked', 0, 0, 'WITHSCORES')[2]
  if least then
    redis.call('ZADD', P .. 'o:' .. org .. ':parked', least, flow)
  else
    redis.call('ZREM', P .. 'o:' .. org .. ':parked', flow)
  end
end

local DONE_MOST, EVENTS_MOST = 10000, 5000
local DAY_MS = 86400000

-- What a single job used, by the day: `tag` says for whom and of what.
local function note_usage(org, tag, what, n)
  redis.call('HINCRBY', P .. 'o:' .. org .. ':use:' .. math.floor(now / DAY_MS), what .. '|' .. tag, n)
end

-- What single jobs weigh, in bytes: `bytes` of those that wait, `kept` of those that have ended.
local function weigh(org, field, by)
  redis.call('HINCRBY', P .. 'o:' .. org, field, by)
  redis.call('HINCRBY', M, field, by)
end

-- The last word about a single job: it is kept with its answer, and whoever waits for it is told. What it asked is
-- kept only where it may be asked again.
local function keep(flow, job, state, body, org, size, tag, erased)
  local o = P .. 'o:' .. org
  if erased then
    redis.call('DEL', P .. 'j:' .. job, P .. 'y:' .. job, P .. 'x:' .. job)
    redis.call('ZREM', o .. ':dead', job)
    redis.call('ZREM', o .. ':jobs', job)
    redis.call('HINCRBY', P .. 'f:' .. flow, 'held', -1)
  else
    local kept = size + #body
    if state == 'succeeded' then
      kept = kept - redis.call('STRLEN', P .. 'y:' .. job)
      redis.call('DEL', P .. 'y:' .. job)
    end
    redis.call('HSET', P .. 'j:' .. job, 'ended', now, 'kept', kept)
    weigh(org, 'kept', kept)
    redis.call('SET', P .. 'a:' .. job, body)
    redis.call('ZADD', P .. 'ended', now, job)
  end
  if tag then
    if state == 'succeeded' then note_usage(org, tag, 'jobs', 1) end
    redis.call('HINCRBY', P .. 'counts', state .. '|' .. string.match(tag, '^[^|]*'), 1)
  end
  weigh(org, 'bytes', -size)
  redis.call('XADD', P .. 'done', 'MAXLEN', '~', DONE_MOST, '*', 'job', job)
  redis.call('XADD', o .. ':ev', 'MAXLEN', '~', EVENTS_MOST, '*', 'at', now, 'event', 'job', 'job', job, 'state', state)
end

-- The last word about a job: its row goes to the flow's stream, where `flushed` takes it; a single job is kept.
local function finish(flow, job, state, body)
  local note, attempts, deadline, org, size, tag, erased =
    unpack(redis.call('HMGET', P .. 'j:' .. job, 'note', 'attempts', 'deadline', 'org', 'size', 'tag', 'erase'))
  if deadline then redis.call('ZREM', P .. 'until', job) end
  redis.call('HSET', P .. 'j:' .. job, 'state', state)
  redis.call('HDEL', P .. 'j:' .. job, 'call')
  redis.call('HINCRBY', P .. 'f:' .. flow, 'open', -1)
  redis.call('HINCRBY', P .. 'f:' .. flow, state, 1)
  if org then return keep(flow, job, state, body, org, size, tag, erased) end
  redis.call('DEL', P .. 'y:' .. job)
  redis.call('XADD', P .. 'f:' .. flow .. ':out', '*', 'job', job, 'state', state,
    'note', note, 'attempts', attempts or 0, 'body', body)
end

-- A queued job leaves `later` or `parked`, if it stands there. In line its place stays until its turn comes, and
-- is passed over then; the flow knows how many such places there are (`gaps`).
local function leave_queue(org, flow, job)
  local f = P .. 'f:' .. flow
  local elsewhere = redis.call('ZREM', f .. ':later', job)
  if redis.call('ZREM', f .. ':parked', job) == 1 then
    elsewhere = 1
    note_parked(org, flow)
  end
  if elsewhere == 0 and redis.call('EXISTS', f .. ':q') == 1 then redis.call('HINCRBY', f, 'gaps', 1) end
end

-- Why a job that could be asked, or asked again, is not: it was cancelled, or its deadline has passed.
local function overtaken(job)
  local cancelled, deadline = unpack(redis.call('HMGET', P .. 'j:' .. job, 'cancel', 'deadline'))
  if cancelled then return 'cancelled' end
  if deadline and tonumber(deadline) <= now then return 'expired' end
end

-- What the row of a job says that ends without an answer.
local function error_body(code, message)
  return '{"error":{"code":"' .. code .. '","message":"' .. message .. '","pointer":null,"provider_status":null}}'
end

-- A job that is no more to be asked ends.
local function end_overtaken(flow, job, why)
  finish(flow, job, why, why == 'cancelled' and error_body(why, 'it was cancelled')
    or error_body(why, 'its deadline passed before it was answered'))
end

-- A queued job ends unasked. It may be what the lane waits for, or what the quota was kept for: both are
-- looked at again.
local function end_queued(flow, job, why)
  local org, lane = unpack(redis.call('HMGET', P .. 'f:' .. flow, 'org', 'lane'))
  leave_queue(org, flow, job)
  end_overtaken(flow, job, why)
  redis.call('ZREM', P .. 'due', lane)
  wake(lane)
  if redis.call('EXISTS', P .. 'o:' .. org .. ':parked') == 1 then look_at_parked(org) end
end

-- It is not known whether the provider answered, and the job is not to be asked twice.
local function end_unknown(flow, job)
  finish(flow, job, 'failed', error_body('unknown_outcome', 'the provider may have answered, and the job is not to be asked twice'))
end

local ERRORS_MOST = 5   -- that are remembered of a job

-- The last errors of a job, a line each.
local function remember_error(job, error)
  local lines = {}
  for line in string.gmatch(redis.call('HGET', P .. 'j:' .. job, 'errors') or '', '[^\n]+') do lines[#lines + 1] = line end
  lines[#lines + 1] = error
  redis.call('HSET', P .. 'j:' .. job, 'errors', table.concat(lines, '\n', math.max(1, #lines - ERRORS_MOST + 1)))
end
