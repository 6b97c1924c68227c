-- single: jobs that are kept with their answers, each by itself, until `purge` takes them.
--
-- What tells them from the jobs of a run is the field `org` of their record.

local INDEX = ':jobs'   -- an org's single jobs, by when they were submitted

local RECORD = 300      -- bytes that a job takes beside what it brings

-- What a job weighs until it has ended.
local function size_of(payload, note, tag) return #payload + #note + #tag + RECORD end

-- Whether so much more would be too much: 'org' or 'server', which has too much that waits, 'org_kept' or
-- 'server_kept', too much that has ended; and how much that is.
local function too_much(org, more, org_most, server_most, org_kept_most, server_kept_most)
  local waits, kept = unpack(redis.call('HMGET', P .. 'o:' .. org, 'bytes', 'kept'))
  local all_wait, all_kept = unpack(redis.call('HMGET', M, 'bytes', 'kept'))
  for _, one in ipairs({{'org', waits, org_most}, {'server', all_wait, server_most}, {'org_kept', kept, org_kept_most},
    {'server_kept', all_kept, server_kept_most}}) do
    local bytes = tonumber(one[2]) or 0
    if bytes + more > tonumber(one[3]) then return one[1], bytes end
  end
end

-- A job joins its org's single jobs.
local function admit(job, org, size)
  redis.call('HSET', P .. 'j:' .. job, 'org', org, 'at', now, 'size', size)
  redis.call('ZADD', P .. 'o:' .. org .. INDEX, now, job)
  weigh(org, 'bytes', size)
end

-- Nothing of it is left.
local function erase(job, org, flow)
  local ended, size, kept = unpack(redis.call('HMGET', P .. 'j:' .. job, 'ended', 'size', 'kept'))
  weigh(org, ended and 'kept' or 'bytes', -(tonumber(ended and kept or size) or 0))
  redis.call('DEL', P .. 'j:' .. job, P .. 'y:' .. job, P .. 'a:' .. job, P .. 'x:' .. job)
  redis.call('ZREM', P .. 'o:' .. org .. ':dead', job)
  redis.call('ZREM', P .. 'ended', job)
  redis.call('ZREM', P .. 'o:' .. org .. INDEX, job)
  if redis.call('EXISTS', P .. 'f:' .. flow) == 1 then redis.call('HINCRBY', P .. 'f:' .. flow, 'held', -1) end
end

-- A flow that holds no job any more leaves: the next one opens it again.
local function close(flow)
  local f = P .. 'f:' .. flow
  local lane, class, user, open, held = unpack(redis.call('HMGET', f, 'lane', 'class', 'user', 'open', 'held'))
  if not lane or tonumber(open) ~= 0 or tonumber(held) ~= 0 then return end
  step_out(lane, class, user, flow)
  redis.call('ZREM', flows_level(lane, class, user) .. ':idle', flow)
  redis.call('SREM', P .. 'flows', flow)
  redis.call('ZREM', P .. 'soon', flow)
  redis.call('DEL', f, f .. ':q', f .. ':later', f .. ':parked', f .. ':out')
end
