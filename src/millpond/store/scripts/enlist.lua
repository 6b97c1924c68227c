#!lua
-- enlist: a fine-tuned model is an org's own, or is no more
--
-- It belongs to that org and to nobody else. Each change has a version and a row in the org's audit.
--
-- uses base
-- ARGV  4 by     who says so
--       5 org
--       6 model  its name at the provider
--       7 base   the model that it was made of; '': it is the org's no more
--
-- Replies  {'enlisted', version}
--          {'unknown', what}   org, or model: it is not this org's
--          {'taken'}           it is another org's

local AUDIT_MOST = 10000

local by, org, model, base = unpack(arg, 1, 4)
local o = P .. 'o:' .. org
if redis.call('EXISTS', o) == 0 then return reply('unknown', 'org') end
local owner, old = redis.call('HGET', P .. 'models', model), redis.call('HGET', o .. ':models', model) or ''
if base == '' and owner ~= org then return reply('unknown', 'model') end
if owner and owner ~= org then return reply('taken') end
if old == base then return reply('enlisted', redis.call('HGET', o, 'version') or '0') end

if base == '' then
  redis.call('HDEL', P .. 'models', model)
  redis.call('HDEL', o .. ':models', model)
else
  redis.call('HSET', P .. 'models', model, org)
  redis.call('HSET', o .. ':models', model, base)
end
local version = redis.call('HINCRBY', o, 'version', 1)
redis.call('XADD', o .. ':audit', 'MAXLEN', '~', AUDIT_MOST, '*', 'at', now, 'by', by, 'version', version,
  'changes', cjson.encode({{'model', org, model, old, base}}))
return reply('enlisted', version)
