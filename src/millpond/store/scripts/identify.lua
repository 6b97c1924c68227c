#!lua flags=allow-oom
-- identify: whose an API key is, and what is kept of it
--
-- What is asked of the server is the same for a key that does not exist.
--
-- uses base
-- ARGV  4 key  its id
--
-- Replies  {'found', org, user, name, expires, revoked, used, master, mark, role, status}   the last two: the
--                      user's; '' for an operator, or where the user has gone
--          {'unknown'}

local org, user, name, expires, revoked, used, master, mark =
  unpack(redis.call('HMGET', P .. 'k:' .. arg[1], 'org', 'user', 'name', 'expires', 'revoked', 'used', 'master', 'mark'))
local role, status = unpack(redis.call('HMGET', P .. 'o:' .. (org or '') .. ':u:' .. (user or ''), 'role', 'status'))
if not mark then return reply('unknown') end
return reply('found', org, user, name, expires, revoked, used, master, mark, role or '', status or '')
