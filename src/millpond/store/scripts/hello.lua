#!lua flags=allow-oom
-- hello: a process begins
--
-- Brings the logical clock up to date where nobody kept it: a new process has seen no time and
-- vouches for none. It says hello with nothing, and is told to ask again a second later; only if
-- no script ran in between is the time that passed by the server's clock believed, since while
-- anybody ticks, a large difference is a stepped clock. Called with `hello` as quiet_ms.
--
-- uses base
-- ARGV  4 raw   what the reply `wait` told, else ''
--
-- Replies  {'hello'}
--          {'wait', raw}   say hello again in a second, with this

if raw and time ~= raw and (time < raw or time - raw > 250) then
  if arg[1] ~= string.format('%d', raw) then return reply('wait', string.format('%d', raw)) end
  move_clock(now + math.max(0, time - raw))
end
return reply('hello')
