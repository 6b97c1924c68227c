#!lua flags=allow-oom
-- pause: a flow takes no more turns until it is set again
--
-- What it has in flight ends as usual.
--
-- uses base
-- ARGV  4 flow
--       5 others   1: all flows but this one instead
--
-- Replies  {'paused', n}

local n = 0
for _, flow in ipairs(arg[2] == '1' and redis.call('SMEMBERS', P .. 'flows') or {arg[1]}) do
  local lane = redis.call('HGET', P .. 'f:' .. flow, 'lane')
  if lane and (flow ~= arg[1] or arg[2] ~= '1') then
    redis.call('HSET', P .. 'f:' .. flow, 'paused', 1)
    redis.call('ZREM', P .. 'l:' .. lane .. ':f', flow)
    n = n + 1
  end
end
return reply('paused', n)
