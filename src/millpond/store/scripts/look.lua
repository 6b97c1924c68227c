#!lua flags=allow-oom
-- look: how things stand for a flow
--
-- uses base window view
-- ARGV  4 flow
--
-- Replies  {'seen', JSON}   {org, flow, lane}: their fields; windows: each limit's used and when it has room
--          {'unknown'}

local flow = flow_view(arg[1])
if not flow.lane then return reply('unknown') end
local lane, windows = lane_view(flow.lane)
if not lane then return reply('unknown') end
return reply('seen', written({org = fields(P .. 'o:' .. flow.org), flow = flow, lane = lane}, {windows = windows}))
