-- single: jobs that are kept with their answers, each by itself, until `purge` takes them.
--
-- What tells them from the jobs of a run is the field `org` of their record.

local INDEX = ':jobs'   -- an org's single jobs, by when they were submitted

-- A job joins its org's single jobs; what it asks counts as waiting until it has ended.
local function admit(job, org, size)
  redis.call('HSET', P .. 'j:' .. job, 'org', org, 'at', now, 'size', size)
  redis.call('ZADD', P .. 'o:' .. org .. INDEX, now, job)
  redis.call('HINCRBY', P .. 'o:' .. org, 'bytes', size)
  redis.call('HINCRBY', M, 'bytes', size)
end

-- Nothing of it is left.
local function erase(job, org, flow)
  redis.call('DEL', P .. 'j:' .. job, P .. 'y:' .. job, P .. 'a:' .. job)
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
