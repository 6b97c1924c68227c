#!lua flags=allow-oom
-- give_back: released | running -> queued | cancelled | expired
--
-- Ends calls that were surely never sent: they cost nothing and their jobs are first in line
-- again. If the provider could not be reached the lane is shut for a while that doubles.
--
-- uses base turn flow window hold
-- ARGV  4 worker
--       5 unreachable   1 if no connection could be made, else 0
--       6 ...           ids of calls, at most 200
--
-- Replies  {'given_back', n}

local SHUT_FIRST_MS, SHUT_MOST_MS = 500, 15000

local worker, unreachable = arg[1], arg[2]
local n = 0
for i = #arg, 3, -1 do   -- the first comes to the head of the line
  local call = read_call(arg[i])
  if call and call.worker == worker and call.state == 'running' then
    n = n + 1
    local l = P .. 'l:' .. call.lane
    if unreachable == '1' and tonumber(redis.call('HGET', l, 'shut_until') or 0) <= now then
      local tries = redis.call('HINCRBY', l, 'unreachable', 1)
      redis.call('HSETNX', l, 'unreachable_since', now)
      redis.call('HSET', l, 'shut_until', now + math.min(SHUT_MOST_MS, SHUT_FIRST_MS * 2 ^ (tries - 1)),
        'shut_reason', 'unreachable')
    end
    for _, job in ipairs(call.jobs) do redis.call('HINCRBY', P .. 'j:' .. job.id, 'unsent', 1) end
    unsend(call)
  end
end
return reply('given_back', n)
