#!lua
-- user: a user of an org is created, changed or removed
--
-- An org that has admins keeps one who can act: the last of those who are not suspended is neither removed nor
-- made a member. With a user go its API keys. Each change has a version and a row in the org's audit.
--
-- uses base audit
-- ARGV  4 by    who says so
--       5 why
--       6 org
--       7 user
--       8 how   create | role | suspend | lift | remove
--       9 role  create, role: member | admin; else ''
--      10 name  create: for people; else ''
--      11 most  users that an org may have
--
-- Replies  {'done', version}
--          {'unknown', what}   org, or user
--          {'known'}           create: there is a user of this id
--          {'full'}            create: the org has as many as it may
--          {'last_admin'}      no other admin could act
--          {'purging'}         create: the org is being erased

local by, why, org, user, how, role, name, most = unpack(arg, 1, 8)
local o = P .. 'o:' .. org
local u, users, admins = o .. ':u:' .. user, o .. ':users', o .. ':admins'
if redis.call('EXISTS', o) == 0 then return reply('unknown', 'org') end
local old_role, status = unpack(redis.call('HMGET', u, 'role', 'status'))
if how == 'create' then
  if old_role then return reply('known') end
  if redis.call('HEXISTS', o, 'purging') == 1 then return reply('purging') end
  if redis.call('ZCARD', users) >= tonumber(most) then return reply('full') end
else
  if not old_role then return reply('unknown', 'user') end
  local others = redis.call('SCARD', admins) - redis.call('SISMEMBER', admins, user)
  local steps_down = how == 'remove' or (how == 'role' and role ~= 'admin')
  if steps_down and old_role == 'admin' and others == 0 then return reply('last_admin') end
end

local changes = {}
local function write(field, old, new)
  if old == new then return end
  redis.call('HSET', u, field, new)
  changes[#changes + 1] = {'user', user, field, old or '', new}
end

if how == 'create' then
  redis.call('ZADD', users, 0, user)
  redis.call('HSET', u, 'created', now, 'by', by)
  write('name', nil, name)
  write('role', nil, role)
  write('status', nil, 'active')
elseif how == 'role' then
  write('role', old_role, role)
elseif how == 'suspend' then
  write('status', status, 'suspended')
elseif how == 'lift' then
  write('status', status, 'active')
else
  changes[1] = {'user', user, 'role', old_role, ''}
  for _, key in ipairs(redis.call('ZRANGE', u .. ':keys', 0, -1)) do   -- as many as `mint` allows
    redis.call('DEL', P .. 'k:' .. key)
    changes[#changes + 1] = {'api key', key, 'user', user, ''}
  end
  redis.call('DEL', u, u .. ':keys')
  redis.call('ZREM', users, user)
end
if #changes == 0 then return reply('done', redis.call('HGET', o, 'version') or '0') end

role, status = unpack(redis.call('HMGET', u, 'role', 'status'))
redis.call(role == 'admin' and status == 'active' and 'SADD' or 'SREM', admins, user)
return reply('done', audit(org, by, why, changes))
