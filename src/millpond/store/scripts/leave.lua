#!lua flags=allow-oom
-- leave: a worker is gone
--
-- Said by the worker itself at its end, or by the parent that saw it die. Its lease ends now;
-- `reap` takes back what it held.
--
-- uses base
-- ARGV  4 worker   its id, or '' for all
--       5 blamed   the call that it was at work on when it died, if somebody knows, else ''
--
-- Replies  {'left', n}

local n = 0
for _, worker in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
  if worker == arg[1] or arg[1] == '' then
    redis.call('ZADD', P .. 'workers', -1, worker)
    if arg[2] ~= '' then redis.call('HSET', P .. 'w:' .. worker, 'blamed', arg[2]) end
    n = n + 1
  end
end
ring()
return reply('left', n)
