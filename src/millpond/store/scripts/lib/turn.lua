-- turn: who is next, by start-time fair queuing.
--
-- A level is a zset of members by start tag: the classes of a lane, the users of a class, the flows of
-- a user. Who was served moves on by 1 / weight. Who has nothing in line keeps its tag in `:idle` until
-- virtual time has passed it, so that going and coming back gains nothing. There the member '' is
-- virtual time: the start tag that was served last.
--
-- Who is new comes a little behind virtual time, so that it goes on however many are new, and in the
-- order of arrival.

local CLASS_WEIGHT = {i = 16, b = 1}
local BEHIND, BEHIND_EACH = 1 / 16, 1e-7

-- A user may have no name: it rests under another one.
local NAMELESS = '\0'
local function bed(member) return member == '' and NAMELESS or member end
local function sleeper(bed) return bed == NAMELESS and '' or bed end

local function classes_level(lane) return P .. 'l:' .. lane .. ':c' end
local function users_level(lane, class) return P .. 'l:' .. lane .. ':u:' .. class end
local function flows_level(lane, class, user) return P .. 'l:' .. lane .. ':f:' .. class .. ':' .. user end

-- Takes turns from now on: from where it stood, or from virtual time.
local function join(level, member)
  if redis.call('ZSCORE', level, member) then return end
  local idle = level .. ':idle'
  local v, stood = unpack(redis.call('ZMSCORE', idle, '', bed(member)))
  v, stood = tonumber(v) or 0, tonumber(stood)
  local tag = stood
  if not stood or stood <= v then tag = v + BEHIND + redis.call('ZCARD', level) * BEHIND_EACH end
  redis.call('ZADD', level, tag, member)
  if stood then redis.call('ZREM', idle, bed(member)) end
end

-- Takes no turns until it joins again.
local function rest(level, member, tag)
  redis.call('ZREM', level, member)
  redis.call('ZADD', level .. ':idle', tag, bed(member))
end

-- A flow takes no more turns, and neither do its user and its class if it was the last one.
local function step_out(lane, class, user, flow)
  local c, u, f = classes_level(lane), users_level(lane, class), flows_level(lane, class, user)
  for _, at in ipairs({{f, flow}, {u, user}, {c, class}}) do
    local tag = redis.call('ZSCORE', at[1], at[2])
    if tag then rest(at[1], at[2], tag) end
    if redis.call('EXISTS', at[1]) == 1 then return end
  end
end

-- Members whose tag virtual time has passed are like new ones; what a user's flows had goes with it.
local function forget_passed(level, below)
  local v = tonumber(redis.call('ZSCORE', level .. ':idle', '')) or 0
  local passed = redis.call('ZRANGE', level .. ':idle', '-inf', string.format('(%.17g', v), 'BYSCORE', 'LIMIT', 0, 4)
  for _, member in ipairs(passed) do
    redis.call('ZREM', level .. ':idle', member)
    if below then redis.call('DEL', below(sleeper(member)) .. ':idle') end
  end
end

-- Nobody of a lane has anything in line any more: all tags may be forgotten. False: there is more to do.
local function forget_turns(lane)
  for class in pairs(CLASS_WEIGHT) do
    local users = users_level(lane, class)
    for _, user in ipairs(redis.call('ZRANGE', users .. ':idle', 0, 199)) do
      redis.call('ZREM', users .. ':idle', user)
      redis.call('DEL', flows_level(lane, class, sleeper(user)) .. ':idle')
    end
    if redis.call('EXISTS', users .. ':idle') == 1 then return false end
  end
  redis.call('DEL', classes_level(lane) .. ':idle')
  return true
end
