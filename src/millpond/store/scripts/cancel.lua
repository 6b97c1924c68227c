#!lua flags=allow-oom
-- cancel: queued | released -> cancelled
--
-- Nobody wants these jobs answered any more. One that is running ends when its call does: a call with no other
-- job is cut at its worker's next heartbeat. An answer that comes all the same is taken.
--
-- uses base turn flow window hold
-- ARGV  4 ...   ids of jobs, at most 200
--
-- Replies  {'cancel', word...}   a word per job: cancelled, cancelling (it runs), ended (it had before) or unknown

local function all_cancelled(call)
  for _, job in ipairs(call.jobs) do
    if redis.call('HEXISTS', P .. 'j:' .. job.id, 'cancel') == 0 then return false end
  end
  return true
end

local function cancel(job)
  local j = P .. 'j:' .. job
  local flow, state, call = unpack(redis.call('HMGET', j, 'flow', 'state', 'call'))
  if not state then return 'unknown' end
  if state == 'queued' then
    end_queued(flow, job, 'cancelled')
    return 'cancelled'
  end
  if state ~= 'released' and state ~= 'running' then return 'ended' end
  redis.call('HSET', j, 'cancel', 1)
  local of = read_call(call)
  -- After a restart of the server a ready call may be one that a worker runs: its heartbeat tells.
  if of.state == 'ready' and all_reported() then
    take_back(of)
    return 'cancelled'
  end
  if all_cancelled(of) then redis.call('HSET', P .. 'c:' .. call, 'cancel', 1) end
  return 'cancelling'
end

local words = {}
for i, job in ipairs(arg) do words[i] = cancel(job) end
return reply('cancel', unpack(words))
