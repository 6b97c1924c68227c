-- review: the steps of an application for full access. An org has one at a time that is open or asked.
--
-- domain/account.py has the same table of steps; tests compare them.

local STEPS = {
  ask = {to = 'asked', open = true},
  answer = {to = 'open', asked = true},
  approve = {to = 'approved', open = true},
  reject = {to = 'rejected', open = true, asked = true},
  withdraw = {to = 'withdrawn', open = true, asked = true},
}

local function application(org, number) return P .. 'o:' .. org .. ':app:' .. number end

-- Where those of all orgs stand that are open or asked, the oldest first.
local function desk(stage) return P .. 'desk:' .. stage end
local function place(org, number, at) return string.format('%015d|%s|%s', at, number, org) end

-- What keeps a step from being taken: 'unknown', 'said' (it was the last that was taken, by the same and with the
-- same words), or the stage that the application is in; nil: nothing does.
local function cannot_step(org, number, how, by, text)
  local stage, last = unpack(redis.call('HMGET', application(org, number), 'stage', 'last'))
  if not stage then return 'unknown' end
  if last == cjson.encode({how, by, text}) then return 'said' end
  if not STEPS[how][stage] then return stage end
end

-- Takes a step. Of a decision it is kept who took it, when, why and with which checklist; what is asked and
-- answered is kept as it was said. The change, for the audit.
local function step(org, number, how, by, text, checklist)
  local a = application(org, number)
  local stage, at = unpack(redis.call('HMGET', a, 'stage', 'at'))
  local to = STEPS[how].to
  redis.call('HSET', a, 'stage', to, 'last', cjson.encode({how, by, text}))
  redis.call('ZREM', desk(stage), place(org, number, at))
  if how == 'ask' or how == 'answer' then
    redis.call('RPUSH', a .. ':talk', cjson.encode({at = now, by = by, how = how, text = text}))
    redis.call('ZADD', desk(to), 0, place(org, number, at))
  else
    redis.call('HSET', a, 'decided', now, 'decided_by', by, 'why', text, 'checklist', checklist)
  end
  return {'application', number, 'stage', stage, to}
end
