#!lua flags=allow-oom
-- pause: a flow takes no more turns until it is set again
--
-- What it has in flight ends as usual.
--
-- uses base turn
-- ARGV  4 flow
--       5 others   1: all flows but this one instead
--
-- Replies  {'paused', n}

local n = 0
for _, flow in ipairs(arg[2] == '1' and redis.call('SMEMBERS', P .. 'flows') or {arg[1]}) do
  local lane, class, user = unpack(redis.call('HMGET', P .. 'f:' .. flow, 'lane', 'class', 'user'))
  if lane and (flow ~= arg[1] or arg[2] ~= '1') then
    redis.call('HSET', P .. 'f:' .. flow, 'paused', 1)
    step_out(lane, class, user, flow)
    n = n + 1
  end
end
return reply('paused', n)
