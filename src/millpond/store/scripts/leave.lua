#!lua flags=allow-oom
-- leave: a worker is gone
--
-- Said by the worker itself at its end, or by the parent that saw it die. Its lease ends now;
-- `reap` takes back what it held.
--
-- uses base
-- ARGV  4 worker   its id, or '' for all
--
-- Replies  {'left', n}

local n = 0
for _, worker in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
  if worker == arg[1] or arg[1] == '' then
    redis.call('ZADD', P .. 'workers', -1, worker)
    n = n + 1
  end
end
ring()
return reply('left', n)
