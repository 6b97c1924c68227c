#!lua flags=allow-oom
-- look: how things stand for a flow
--
-- uses base window
-- ARGV  4 flow
--
-- Replies  {'seen', JSON}   {org, flow, lane}: their fields, each limit with used and when it has room
--          {'unknown'}

local f = P .. 'f:' .. arg[1]
local function fields(key)
  local t, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
  return t
end

local flow = fields(f)
if not flow.lane then return reply('unknown') end
local l = P .. 'l:' .. flow.lane
local lane = fields(l)
if not lane.org then return reply('unknown') end
flow.common = nil
lane.flight = redis.call('ZCARD', l .. ':flight')
local windows, known = {}, known_of(flow.lane)
for i, limit in ipairs(cjson.decode(lane.limits)) do
  local used, frees = taken(flow.lane, limit, known)
  windows[i] = {used = used, frees_at = frees(math.max(1, used - limit[1] + 1))}
end
lane.share = share_of(flow.lane, (shortest_of(cjson.decode(lane.limits))))
lane.windows = windows
flow.queued = redis.call('LLEN', f .. ':q')
flow.parked = redis.call('ZCARD', f .. ':parked')
flow.parked_least = redis.call('ZRANGE', f .. ':parked', 0, 0, 'WITHSCORES')[2]
flow.later = redis.call('ZCARD', f .. ':later')
flow.later_at = redis.call('ZRANGE', f .. ':later', 0, 0, 'WITHSCORES')[2]
local told = cjson.encode({org = fields(P .. 'o:' .. flow.org), flow = flow, lane = lane})
if #windows == 0 then told = string.gsub(told, '"windows":{}', '"windows":[]', 1) end
return reply('seen', told)
